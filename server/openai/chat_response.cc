#include "server/openai/chat_response.h"

#include <utility>

#include "server/openai/logprobs_format.h"
#include "server/openai/usage.h"

namespace spin {
namespace {

constexpr char kChunkObject[] = "chat.completion.chunk";

Json TakeLogprobs(const ResponsePlan& plan, const ChoiceState& choice) {
  if (!plan.logprobs.has_value()) return nullptr;
  return FormatChatLogprobs(plan, choice.tokens);
}

Json WholeChoice(const ResponsePlan& plan, ChoiceState& choice) {
  Json message;
  message["role"] = "assistant";
  message["content"] = std::move(choice.text);
  message["refusal"] = nullptr;
  Json json;
  json["index"] = choice.index;
  json["message"] = std::move(message);
  json["logprobs"] = TakeLogprobs(plan, choice);
  json["finish_reason"] = FormatFinishReason(choice.finish);
  json["stop_reason"] = FormatStopReason(choice);
  if (plan.return_token_ids) json["token_ids"] = FormatTokenIds(choice.tokens);
  return json;
}

Json Chunk(const ResponsePlan& plan, int32_t index, Json delta, Json logprobs) {
  Json choice;
  choice["index"] = index;
  choice["delta"] = std::move(delta);
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = nullptr;
  Json chunk = ResponseHeader(plan, kChunkObject);
  chunk["choices"] = Json::array({std::move(choice)});
  return chunk;
}

}  // namespace

Json ChatFormat::Whole(const ResponsePlan& plan, std::span<ChoiceState> choices) const {
  Json response = ResponseHeader(plan, "chat.completion");
  response["service_tier"] = nullptr;
  Json list = Json::array();
  for (ChoiceState& choice : choices) list.push_back(WholeChoice(plan, choice));
  response["choices"] = std::move(list);
  response["usage"] = FormatUsage(plan, choices);
  if (plan.prompt_logprobs.has_value()) {
    response["prompt_logprobs"] = FormatPromptLogprobs(plan, plan.prompts.front());
  }
  if (plan.return_token_ids) response["prompt_token_ids"] = plan.prompts.front().tokens;
  return response;
}

std::vector<Json> ChatFormat::Chunks(const ResponsePlan& plan, ChoiceState& choice) const {
  std::vector<Json> chunks;
  if (!std::exchange(choice.opened, true)) {
    Json delta;
    delta["role"] = "assistant";
    delta["content"] = "";
    chunks.push_back(Chunk(plan, choice.index, std::move(delta), nullptr));
    if (plan.return_token_ids) chunks.back()["prompt_token_ids"] = plan.prompts.front().tokens;
  }
  Json delta = Json::object();
  if (!choice.text.empty()) delta["content"] = std::move(choice.text);
  chunks.push_back(Chunk(plan, choice.index, std::move(delta), TakeLogprobs(plan, choice)));
  Json& json = chunks.back()["choices"][0];
  json["finish_reason"] = FormatFinishReason(choice.finish);
  if (choice.finish != FinishReason::kNone) json["stop_reason"] = FormatStopReason(choice);
  if (plan.return_token_ids) json["token_ids"] = FormatTokenIds(choice.tokens);
  choice.text.clear();
  choice.tokens.clear();
  return chunks;
}

Json ChatFormat::UsageChunk(const ResponsePlan& plan) const {
  Json chunk = ResponseHeader(plan, kChunkObject);
  chunk["choices"] = Json::array();
  return chunk;
}

}  // namespace spin
