// The bulk of a demotion on its way: extents that nobody writes any more, copied from HBM to the
// host on the copy stream, beside the decode steps.
//
// One piece at a time. Its size bounds how long the Offload of a prefilled layer, on the same
// stream, may be held up.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/device.h"
#include "kernels/params.h"

namespace spin {

class SpillCopies {
 public:
  // `device` and what `tables` point to outlive this.
  SpillCopies(Device* device, const KvTables& tables);

  // Extents of one piece: about 8 ms of a PCIe 5 link.
  static int32_t MaxExtents(const KvGeometry& geometry);

  // Enqueues a piece of kSpillExtent commands on `copy`, behind what `compute` was given so far.
  // REQUIRES: the last piece has passed.
  void Enqueue(std::span<const TableCommand> copies, Stream& compute, Stream& copy);
  bool Passed() { return device_->Passed(*done_); }
  void Await() { device_->Synchronize(*done_); }

 private:
  Device* const device_;
  const KvTables tables_;
  std::unique_ptr<Event> written_, done_;
};

}  // namespace spin
