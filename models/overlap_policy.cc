#include "models/overlap_policy.h"

#include "kernels/params.h"

namespace spin {
namespace {

// A layer's missing bytes from which it overlaps, and below which it stops. An estimate, not a measurement: 256 KiB
// take 5 us of a PCIe 5 link, about what a fork, a join and a launch cost. Two bounds, so that steps near them do not
// go back and forth.
constexpr uint64_t kBeginBytes = 256 << 10;
constexpr uint64_t kEndBytes = kBeginBytes / 2;

StepSchedule FixedSchedule(RetrieveOverlap mode) {
  if (mode == RetrieveOverlap::kReadyFirst) return StepSchedule::kReadyFirst;
  if (mode == RetrieveOverlap::kRowGroups) return StepSchedule::kRowGroups;
  return StepSchedule::kInOrder;
}

}  // namespace

OverlapPolicy::OverlapPolicy(RetrieveOverlap mode, bool device_overlaps, int32_t num_layers,
                             int32_t num_q_heads)
    : measures_(mode == RetrieveOverlap::kAuto && device_overlaps),
      num_q_heads_(num_q_heads),
      begin_bytes_(kBeginBytes * static_cast<uint64_t>(num_layers)),
      end_bytes_(kEndBytes * static_cast<uint64_t>(num_layers)),
      schedule_(FixedSchedule(mode)) {}

void OverlapPolicy::Observe(uint64_t bytes) {
  const uint64_t of_step = bytes - seen_bytes_;
  seen_bytes_ = bytes;
  if (!measures_) return;
  const bool overlaps = schedule_ != StepSchedule::kInOrder;
  schedule_ = of_step >= (overlaps ? end_bytes_ : begin_bytes_) ? StepSchedule::kReadyFirst
                                                                : StepSchedule::kInOrder;
}

bool OverlapPolicy::Fits(StepSchedule schedule, int32_t max_batch) const {
  switch (schedule) {
    case StepSchedule::kInOrder:
      return true;
    case StepSchedule::kReadyFirst:
      return int64_t{max_batch} * num_q_heads_ <= kMaxHalvedHeads;
    case StepSchedule::kRowGroups:
      return max_batch >= kNumRowGroups;
  }
  return false;
}

StepSchedule OverlapPolicy::schedule(int32_t max_batch) const {
  return Fits(schedule_, max_batch) ? schedule_ : StepSchedule::kInOrder;
}

bool OverlapPolicy::MayChoose(StepSchedule schedule, int32_t max_batch) const {
  if (!measures_) return schedule == this->schedule(max_batch);
  return schedule != StepSchedule::kRowGroups && Fits(schedule, max_batch);
}

}  // namespace spin
