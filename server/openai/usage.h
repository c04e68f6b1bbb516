// The usage object.
#pragma once

#include <span>

#include "server/openai/json_body.h"
#include "server/openai/response_plan.h"

namespace spin {

// All prompts and choices of one answer so far. A prompt with several choices counts once. `spin` is there once every
// prompt has its summary: merged, an absent figure null (docs/extensions.md).
Json FormatUsage(const ResponsePlan& plan, std::span<const ChoiceState> choices);

}  // namespace spin
