// Prompts: template, continuation, lengths.
#include "server/openai/prompt_builder.h"

#include <catch2/catch.hpp>

#include "server/error_mapping.h"
#include "tests/server/parse_request.h"
#include "tests/server/serving_fakes.h"

namespace spin {
namespace {

using testing::ChatPrompt;
using testing::TestServing;

TEST_CASE("continue_final_message ends the prompt inside the last message") {
  const std::string head =
      R"({"continue_final_message":true,"messages":[{"role":"user","content":"Hi"},)";
  CHECK(ChatPrompt(head + R"({"role":"assistant","content":"Once upon "}]})").value() ==
        "[user]Hi\n[assistant]Once upon ");
  const auto none =
      ChatPrompt(head + R"({"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}]})");
  CHECK(ToApiError(none.status()).param == "continue_final_message");
}

TEST_CASE("a template that refuses is a 400 with its words") {
  const auto prompt = ChatPrompt(R"({"messages":[{"role":"user","content":"refuse"}]})");
  const ApiError error = ToApiError(prompt.status());
  CHECK(error.http_status == 400);
  CHECK(error.param == "messages");
  CHECK(error.message.find("conversation roles must alternate") != std::string::npos);
}

TEST_CASE("too long a prompt is refused with the sentence that clients look for") {
  CHECK(CheckContextLength(100, 28, 128, "messages").ok());
  CHECK(CheckContextLength(127, std::nullopt, 128, "messages").ok());
  CHECK(MessageOf(CheckContextLength(39000, 1000, 32768, "prompt")) ==
        "This model's maximum context length is 32768 tokens. However, your prompt resulted in "
        "39000 tokens. Please "
        "reduce the length of the prompt.");
  const absl::Status status = CheckContextLength(32000, 1000, 32768, "messages");
  CHECK(
      MessageOf(status) ==
      "This model's maximum context length is 32768 tokens. However, you requested 33000 tokens "
      "(32000 in the "
      "messages, 1000 in the completion). Please reduce the length of the messages or completion.");
  CHECK(ToApiError(status).code == "context_length_exceeded");
  CHECK(ToApiError(status).param == "messages");
  CHECK(ToApiError(CheckContextLength(0, 1, 128, "prompt")).code == "invalid_value");
}

TEST_CASE("a text that its bytes show to be too long is refused unseen where it must fit") {
  TestServing serving;  // a token a byte, 128 of them; the first begins the text
  const auto encode = [&](std::size_t bytes, bool must_fit) {
    return TokenizeText(serving.context, std::string(bytes, 'a'), true, "prompt", must_fit);
  };
  CHECK(encode(128, true)->size() == 129);
  CHECK(encode(129, false)->size() == 130);
  const ApiError error = ToApiError(encode(129, true).status());
  CHECK(error.http_status == 400);
  CHECK(error.code == "context_length_exceeded");
  CHECK(error.param == "prompt");
  CHECK(error.message.starts_with("This model's maximum context length is 128 tokens. However,"));
}

TEST_CASE("a prompt is cut to its last tokens") {
  std::vector<int32_t> tokens = {1, 2, 3, 4, 5};
  TruncatePrompt(std::nullopt, 3, tokens);
  CHECK(tokens.size() == 5);
  TruncatePrompt(4, 100, tokens);
  CHECK(tokens == std::vector<int32_t>{2, 3, 4, 5});
  TruncatePrompt(-1, 3, tokens);  // what the context holds, with room for one token more
  CHECK(tokens == std::vector<int32_t>{4, 5});
}

}  // namespace
}  // namespace spin
