#include "tools/bench/openai_protocol.h"

#include <nlohmann/json.hpp>

namespace spin {
namespace {

using Json = nlohmann::json;

Json Parse(std::string_view text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

// The member, or null where the value is no object or lacks it.
const Json& Member(const Json& value, const char* name) {
  static const Json kNull;
  if (!value.is_object()) return kNull;
  const auto found = value.find(name);
  return found == value.end() ? kNull : *found;
}

int TokenCount(const Json& usage, const char* name) {
  const Json& count = Member(usage, name);
  return count.is_number_integer() ? count.get<int>() : -1;
}

bool IsNonEmpty(const Json& value) {
  return (value.is_string() || value.is_array()) && !value.empty() && value != "";
}

bool HasContent(const Json& choice) {
  const Json& delta = Member(choice, "delta");
  return IsNonEmpty(Member(choice, "text")) || IsNonEmpty(Member(choice, "token_ids")) ||
         IsNonEmpty(Member(delta, "content")) || IsNonEmpty(Member(delta, "reasoning_content")) ||
         IsNonEmpty(Member(delta, "tool_calls"));
}

}  // namespace

absl::StatusOr<std::string> MakeRequestBody(const ServeOptions& options, const std::string& model,
                                            const Prompt& prompt) {
  Json body = {{"model", model},
               {"max_tokens", prompt.output_len},
               {"temperature", options.temperature},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}}};
  if (options.chat) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", prompt.text}}});
  } else if (options.token_ids) {
    body["prompt"] = prompt.ids;
  } else {
    body["prompt"] = prompt.text;
  }
  if (options.ignore_eos) body["ignore_eos"] = true;
  if (!options.extra_body.empty()) {
    const Json extra = Parse(options.extra_body);
    if (!extra.is_object())
      return InvalidArgument("--extra-body is not a JSON object: %s", options.extra_body);
    body.update(extra);
  }
  return body.dump();
}

absl::StatusOr<StreamEvent> ParseStreamEvent(std::string_view payload) {
  StreamEvent event;
  if (payload == "[DONE]") {
    event.done = true;
    return event;
  }
  const Json chunk = Parse(payload);
  if (!chunk.is_object()) {
    return DataLoss("an event of the stream is not a JSON object: %s", payload.substr(0, 200));
  }
  if (!Member(chunk, "error").is_null()) {
    event.error = ParseErrorMessage(payload);
    return event;
  }
  if (const Json& choices = Member(chunk, "choices"); choices.is_array()) {
    for (const Json& choice : choices) event.has_content |= HasContent(choice);
  }
  const Json& usage = Member(chunk, "usage");
  event.input_tokens = TokenCount(usage, "prompt_tokens");
  event.output_tokens = TokenCount(usage, "completion_tokens");
  return event;
}

absl::StatusOr<std::string> ParseFirstModel(std::string_view body) {
  const Json answer = Parse(body);
  const Json& models = Member(answer, "data");
  if (!models.is_array() || models.empty() || !Member(models[0], "id").is_string()) {
    return DataLoss("/v1/models names no model: %s", body.substr(0, 200));
  }
  return Member(models[0], "id").get<std::string>();
}

std::string ParseErrorMessage(std::string_view body) {
  const Json answer = Parse(body);
  const Json& message = Member(Member(answer, "error"), "message");
  return message.is_string() ? message.get<std::string>() : std::string(body.substr(0, 200));
}

}  // namespace spin
