#include "server/openai/usage.h"

namespace spin {

Json FormatUsage(const ResponsePlan& plan, std::span<const ChoiceState> choices) {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  for (const PromptInfo& prompt : plan.prompts) {
    prompt_tokens += prompt.num_tokens;
    cached_tokens += prompt.cached_tokens;
  }
  int64_t completion_tokens = 0;
  for (const ChoiceState& choice : choices) completion_tokens += choice.num_tokens;
  Json usage;
  usage["prompt_tokens"] = prompt_tokens;
  usage["completion_tokens"] = completion_tokens;
  usage["total_tokens"] = prompt_tokens + completion_tokens;
  usage["prompt_tokens_details"] = {{"cached_tokens", cached_tokens}};
  return usage;
}

}  // namespace spin
