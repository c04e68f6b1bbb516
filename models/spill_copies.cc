#include "models/spill_copies.h"

#include <algorithm>

#include "common/check.h"

namespace spin {
namespace {

constexpr int64_t kPieceBytes = 400'000'000;
constexpr int64_t kPieceCopies = 512;  // a device's queue holds so many at once

}  // namespace

SpillCopies::SpillCopies(Device* device, const KvTables& tables)
    : device_(device),
      tables_(tables),
      written_(device->CreateEvent()),
      done_(device->CreateEvent()) {}

int32_t SpillCopies::MaxExtents(const KvGeometry& geometry) {
  return static_cast<int32_t>(
      std::clamp<int64_t>(kPieceBytes / geometry.extent_bytes(), 1, kPieceCopies));
}

void SpillCopies::Enqueue(std::span<const TableCommand> copies, Stream& compute, Stream& copy) {
  if (copies.empty()) return;
  SPIN_CHECK(Passed());
  device_->Record(*written_, compute);
  device_->Wait(copy, *written_);
  const int64_t bytes = tables_.geometry.extent_bytes();
  for (const TableCommand& c : copies) {
    SPIN_CHECK(c.kind == TableCommandKind::kSpillExtent && c.index >= 0 && c.value >= 0);
    device_->Copy(static_cast<char*>(tables_.host_pages) + c.index * bytes,
                  static_cast<const char*>(tables_.slots) + c.value * bytes, bytes, copy);
  }
  device_->Record(*done_, copy);
}

}  // namespace spin
