#include "models/overlap_policy.h"

namespace spin {
namespace {

// A layer's missing bytes from which it overlaps, and below which it stops. An estimate, not a measurement: 256 KiB
// take 5 us of a PCIe 5 link, about what a fork, a join and a launch cost. Two bounds, so that steps near them do not
// go back and forth.
constexpr uint64_t kBeginBytes = 256 << 10;
constexpr uint64_t kEndBytes = kBeginBytes / 2;

}  // namespace

OverlapPolicy::OverlapPolicy(RetrieveOverlap mode, bool device_overlaps, int32_t num_layers)
    : measures_(mode == RetrieveOverlap::kAuto && device_overlaps),
      begin_bytes_(kBeginBytes * static_cast<uint64_t>(num_layers)),
      end_bytes_(kEndBytes * static_cast<uint64_t>(num_layers)),
      overlaps_(mode == RetrieveOverlap::kAlways) {}

void OverlapPolicy::Observe(uint64_t bytes) {
  const uint64_t of_step = bytes - seen_bytes_;
  seen_bytes_ = bytes;
  if (measures_) overlaps_ = of_step >= (overlaps_ ? end_bytes_ : begin_bytes_);
}

}  // namespace spin
