// Which schedule the next decode step has: in order, or pages fetched beside the attention to what
// is ready.
//
// Overlapping hides the smaller of the two, and costs a fork, a join and a second attention launch a
// layer, whatever is missing. So it pays from so many missing bytes on; how many there will be is
// guessed from the last collected step, since selections move slowly.
#pragma once

#include <cstdint>

namespace spin {

enum class RetrieveOverlap { kAuto, kNever, kAlways };

class OverlapPolicy {
 public:
  // `device_overlaps`: DeviceInfo::overlaps_streams; kAuto never overlaps without.
  OverlapPolicy(RetrieveOverlap mode, bool device_overlaps, int32_t num_layers);

  // `bytes`: fetched by all decode steps so far, as of a collected one.
  void Observe(uint64_t bytes);
  bool overlaps() const { return overlaps_; }

 private:
  const bool measures_;
  const uint64_t begin_bytes_, end_bytes_;  // of a step
  uint64_t seen_bytes_ = 0;
  bool overlaps_;
};

}  // namespace spin
