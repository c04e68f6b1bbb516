// Which schedule the next decode step has: in order, or pages fetched beside other work.
//
// Overlapping hides the smaller of the two, and costs a fork, a join and further launches a layer, whatever is
// missing. So it pays from so many missing bytes on; how many there will be is guessed from the last collected step,
// since selections move slowly.
#pragma once

#include <cstdint>

#include "models/pipeline/step_schedule.h"

namespace spin {

enum class RetrieveOverlap { kAuto, kNever, kReadyFirst, kRowGroups };

class OverlapPolicy {
 public:
  // `device_overlaps`: DeviceInfo::overlaps_streams; kAuto never overlaps without.
  OverlapPolicy(RetrieveOverlap mode, bool device_overlaps, int32_t num_layers,
                int32_t num_q_heads);

  // `bytes`: fetched by all decode steps so far, as of a collected one.
  void Observe(uint64_t bytes);
  // Of a step with so many places: in order too where they are too many to be attended to in two parts, too few for
  // groups.
  StepSchedule schedule(int32_t max_batch) const;
  // Whether it may ever be that one.
  bool MayChoose(StepSchedule schedule, int32_t max_batch) const;

 private:
  bool Fits(StepSchedule schedule, int32_t max_batch) const;

  const bool measures_;
  const int32_t num_q_heads_;
  const uint64_t begin_bytes_, end_bytes_;  // of a step
  uint64_t seen_bytes_ = 0;
  StepSchedule schedule_;
};

}  // namespace spin
