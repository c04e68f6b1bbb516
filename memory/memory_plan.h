// The start-up arithmetic: how the budgets of the configuration become pools. Everything is
// allocated once, from this plan, and no request can make the process need more.
//
//   hbm_budget = directories + ages and owners + bases of keys + summaries + meta segments + slots
//   host_pool  = host pages
//
// Summaries cover every token that either tier can hold; meta segments cover the host tier; slots
// get the rest.
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"
#include "kernels/kv_layout.h"

namespace spin {

// Arrays that share an allocation begin at multiples of this many bytes.
inline constexpr int64_t kArrayAlignment = 256;

struct MemoryPlan {
  KvGeometry geometry;
  int64_t hbm_budget_bytes = 0;
  int64_t host_pool_bytes = 0;

  int32_t num_slot_extents = 0;
  int32_t num_host_extents = 0;
  int32_t num_summary_extents = 0;
  int32_t num_meta_segments = 0;

  int64_t directory_bytes = 0;   // directories, placement, num_slots
  int64_t slot_state_bytes = 0;  // owners and ages
  int64_t key_basis_bytes = 0;   // of all rows
  int64_t meta_bytes = 0;
  int64_t summary_bytes = 0;
  int64_t slot_bytes = 0;
  int64_t host_bytes = 0;

  int64_t hbm_bytes() const {
    return directory_bytes + slot_state_bytes + key_basis_bytes + meta_bytes + summary_bytes +
           slot_bytes;
  }
  // Tokens of one sequence that fit: all of HBM as Resident; all of the host pool.
  int64_t resident_tokens() const;
  int64_t host_tokens() const;

  // A table for people: each line an item, its bytes, and what it holds.
  std::string ToText() const;
};

// HBM that a cache of so many extents takes, tables and metadata included.
int64_t HbmBytes(const KvGeometry& geometry, int64_t num_slot_extents, int64_t num_host_extents);

// ResourceExhausted, with the least budget that would do and its key, when not even one extent a
// layer fits in HBM, or in a host pool that is not 0. Neither pool gets more extents than the
// directories can name.
absl::StatusOr<MemoryPlan> PlanMemory(const KvGeometry& geometry, int64_t hbm_budget_bytes,
                                      int64_t host_pool_bytes);

}  // namespace spin
