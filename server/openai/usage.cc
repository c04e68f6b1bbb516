#include "server/openai/usage.h"

#include <optional>

namespace spin {
namespace {

Json OrNull(const std::optional<double>& value) {
  return value.has_value() ? Json(*value) : Json(nullptr);
}

Json FormatSummary(const RequestSummary& s) {
  const auto ms = [](int64_t ns) { return static_cast<double>(ns) * 1e-6; };
  Json json;
  json["queue_ms"] = ms(s.queue_ns);
  json["prefill_ms"] = ms(s.prefill_ns);
  json["decode_ms"] = ms(s.decode_ns);
  json["placement"] = s.placement == Placement::kTiered ? "tiered" : "resident";
  json["demotions"] = s.demotions;
  json["context_tokens"] = s.context_tokens;
  json["attended_tokens"] = OrNull(s.attended_tokens_a_step());
  json["hit_ratio"] = OrNull(s.hit_ratio());
  json["fetched_bytes"] = s.fetched_bytes;
  return json;
}

}  // namespace

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
  std::optional<RequestSummary> summary = plan.prompts.front().summary;
  for (std::size_t i = 1; i < plan.prompts.size() && summary.has_value(); ++i) {
    if (plan.prompts[i].summary.has_value()) {
      summary->Merge(*plan.prompts[i].summary);
    } else {
      summary.reset();
    }
  }
  if (summary.has_value()) usage["spin"] = FormatSummary(*summary);
  return usage;
}

}  // namespace spin
