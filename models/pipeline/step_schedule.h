// The schedules of a decode step, and the groups that one of them cuts a batch into. models/README.md, section 4.
#pragma once

#include <cstdint>

namespace spin {

enum class StepSchedule : int32_t {
  kInOrder = 0,     // one stream
  kReadyFirst = 1,  // attention to what is in HBM beside the fetch of the rest
  kRowGroups = 2,   // one group's fetch beside the other's Select and Attention
};
inline constexpr int32_t kNumStepSchedules = 3;

// Groups of places of a batch; group g has the places RowGroupBegin(g) .. RowGroupBegin(g + 1).
inline constexpr int32_t kNumRowGroups = 2;
constexpr int32_t RowGroupBegin(int32_t group, int32_t max_batch) {
  return (group * max_batch + kNumRowGroups - 1) / kNumRowGroups;
}

}  // namespace spin
