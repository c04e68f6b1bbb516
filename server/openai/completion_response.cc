#include "server/openai/completion_response.h"

#include <utility>

#include "server/openai/logprobs_format.h"
#include "server/openai/usage.h"

namespace spin {
namespace {

constexpr char kObject[] = "text_completion";

// What the choice holds, as a choice object; the prompt comes first where it is the choice's first and echo was asked.
Json TakeChoice(const ResponsePlan& plan, ChoiceState& choice) {
  const PromptInfo& prompt = plan.prompts[choice.prompt];
  const bool first = !std::exchange(choice.opened, true);
  const bool echo = first && plan.echo;
  Json json;
  json["index"] = choice.index;
  json["text"] = echo ? prompt.text + choice.text : std::move(choice.text);
  json["logprobs"] = nullptr;
  if (plan.logprobs.has_value()) {
    json["logprobs"] =
        FormatCompletionLogprobs(plan, echo ? &prompt : nullptr, choice.tokens, choice.text_offset);
  }
  json["finish_reason"] = FormatFinishReason(choice.finish);
  json["stop_reason"] = FormatStopReason(choice);
  if (first && plan.prompt_logprobs.has_value()) {
    json["prompt_logprobs"] = FormatPromptLogprobs(plan, prompt);
  }
  if (plan.return_token_ids) {
    json["token_ids"] = FormatTokenIds(choice.tokens);
    if (first) json["prompt_token_ids"] = prompt.tokens;
  }
  choice.text.clear();
  choice.tokens.clear();
  return json;
}

}  // namespace

Json CompletionFormat::Whole(const ResponsePlan& plan, std::span<ChoiceState> choices) const {
  Json response = ResponseHeader(plan, kObject);
  Json list = Json::array();
  for (ChoiceState& choice : choices) list.push_back(TakeChoice(plan, choice));
  response["choices"] = std::move(list);
  response["usage"] = FormatUsage(plan, choices);
  return response;
}

std::vector<Json> CompletionFormat::Chunks(const ResponsePlan& plan, ChoiceState& choice) const {
  Json chunk = ResponseHeader(plan, kObject);
  chunk["choices"] = Json::array({TakeChoice(plan, choice)});
  return {std::move(chunk)};
}

Json CompletionFormat::UsageChunk(const ResponsePlan& plan) const {
  Json chunk = ResponseHeader(plan, kObject);
  chunk["choices"] = Json::array();
  return chunk;
}

}  // namespace spin
