#include "tools/bench/openai_protocol.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tools/bench/json_cursor.h"

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

// A string or an array that holds something.
bool IsNonEmpty(std::string_view value) {
  if (value.starts_with('"')) return value.size() > 2;
  return value.starts_with('[') && value.find_first_not_of(" \n\t\r", 1) != value.size() - 1;
}

constexpr std::string_view kContentKeys[] = {"text", "token_ids", "content", "reasoning_content",
                                             "tool_calls"};

// A choice of either API, or its delta.
bool HasContent(JsonCursor& cursor) {
  bool has_content = false;
  if (cursor.Peek() != '{') return cursor.Skip(), false;
  cursor.Members([&](std::string_view key) {
    if (key == "delta") {
      has_content |= HasContent(cursor);
      return;
    }
    const bool is_content =
        std::find(std::begin(kContentKeys), std::end(kContentKeys), key) != std::end(kContentKeys);
    has_content |= IsNonEmpty(cursor.Skip()) && is_content;
  });
  return has_content;
}

void ReadUsage(JsonCursor& cursor, StreamEvent& event) {
  if (cursor.Peek() != '{') {
    cursor.Skip();
    return;
  }
  cursor.Members([&](std::string_view key) {
    const std::string_view value = cursor.Skip();
    int count = -1;
    const auto [stop, error] = std::from_chars(value.data(), value.data() + value.size(), count);
    if (error != std::errc() || stop != value.data() + value.size()) return;
    if (key == "prompt_tokens") event.input_tokens = count;
    if (key == "completion_tokens") event.output_tokens = count;
  });
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
  JsonCursor cursor(payload);
  bool failed = false;
  cursor.Members([&](std::string_view key) {
    if (key == "choices" && cursor.Peek() == '[') {
      cursor.Elements([&] { event.has_content |= HasContent(cursor); });
    } else if (key == "usage") {
      ReadUsage(cursor, event);
    } else {
      failed |= cursor.Skip() != "null" && key == "error";
    }
  });
  if (!cursor.AtEnd()) {
    return DataLoss("an event of the stream is not a JSON object: %s", payload.substr(0, 200));
  }
  if (failed) event.error = ParseErrorMessage(payload);
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
