// The five stages: Index, Offload, Select, Retrieve, Attention, in that order. Index and Select
// belong to the algorithm, the rest is generic. Enqueues only; engine thread.
//
// A layer of a decode step has three schedules (models/README.md, section 4): in order on one stream; missing pages on
// their way beside the attention to what is ready; rows in groups, one group's pages on their way beside the others'
// Select and Attention.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "models/model_context.h"
#include "models/pipeline/stage_clock.h"
#include "models/pipeline/step_schedule.h"
#include "models/workspace.h"

namespace spin {

// What the overlapping schedules fetch pages on. The device outlives it.
struct GatherStream {
  explicit GatherStream(Device& device)
      : stream(device.CreateStream("gather", StreamPriority::kHigh)) {
    for (auto& event : lists_are_there) event = device.CreateEvent();
    for (auto& event : pages_are_there) event = device.CreateEvent();
  }

  std::unique_ptr<Stream> stream;
  std::array<std::unique_ptr<Event>, kNumRowGroups> lists_are_there, pages_are_there;
};

// Attention of one layer of a decode step: workspace.qkv -> workspace.attention. Retrieve counts into
// workspace.counters. What overlaps joins `stream` again before this returns. kRowGroups REQUIRES
// workspace.group_rows to be those of this max_batch. With a `clock` (or null) there is a lap behind each stage, which
// REQUIRES kInOrder.
void EnqueueDecodeAttention(const ModelContext& model, int32_t layer, const DecodeRows& decode,
                            Workspace& workspace, Stream& stream, GatherStream& gather,
                            StepSchedule schedule, StageClock* clock);

// The end of one layer of a prefill batch: Index (with its scratch) and Offload of what is in `staging`; with a `clock`
// (or null) a lap behind each.
void EnqueuePrefillOffload(const ModelContext& model, int32_t layer, const PrefillSlice* slices,
                           int32_t num_slices, const Staging& staging, void* index_scratch,
                           StageClock* clock, Stream& stream);

}  // namespace spin
