// What the sequences of spin_bench step select: --selection.
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"
#include "server/model_stack.h"

namespace spin::bench {

// "model", "random" or "trace:FILE".
bool IsSelection(const std::string& name);

// Wraps the plan's algorithm so that sequences of `context` tokens that decode up to `run_steps` more select what
// `selection` says; `model` changes nothing. InvalidArgument when the algorithm selects everything, or other amounts
// than the trace. REQUIRES: IsSelection.
absl::Status SetSelection(const std::string& selection, int32_t context, int32_t run_steps,
                          ModelPlan& plan);

}  // namespace spin::bench
