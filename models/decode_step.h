// A whole decode step: what a device captures, unless a clock runs along.
#pragma once

#include "models/model_context.h"
#include "models/pipeline/sparse_pipeline.h"
#include "models/pipeline/stage_clock.h"
#include "models/workspace.h"

namespace spin {

// From the rows' tokens to the next ones, which go to `out` ([decode.max_batch], pinned), too. `gather` is the stream
// for what overlaps. With a `clock` (or null): in order, timed stage by stage.
void EnqueueDecodeStep(const ModelContext& model, const DecodeRows& decode, StepSchedule schedule,
                       StageClock* clock, Workspace& workspace, Stream& compute,
                       GatherStream& gather, SampledToken* out);

}  // namespace spin
