// The bytes of a MemoryPlan: owns every buffer of the KV cache and hands out the KvTables that
// kernels work on.
//
// Allocated once at start; the device must outlive it. The contents belong to the kernels (see
// kv_layout.h).
#pragma once

#include <memory>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/kv_layout.h"
#include "memory/memory_plan.h"

namespace spin {

class KvStore {
 public:
  // Allocates and initialises (directories empty, nothing resident) on `stream`, and waits for it. Pages, summaries and
  // bases of keys are left as the device gives them: nothing reads a token that was not written. `progress` is of the
  // host pool, which may take seconds to pin.
  static absl::StatusOr<std::unique_ptr<KvStore>> Create(
      Device& device, Stream& stream, const MemoryPlan& plan,
      AllocationProgress progress = [](int64_t, int64_t) {});

  const KvTables& tables() const { return tables_; }
  const MemoryPlan& plan() const { return plan_; }

 private:
  explicit KvStore(const MemoryPlan& plan) : plan_(plan) {}

  void MapTables();
  void Initialise(Device& device, Stream& stream);

  MemoryPlan plan_;
  KvTables tables_;
  Buffer directories_, slot_state_, key_bases_, meta_, summaries_, slots_, host_pages_;
};

}  // namespace spin
