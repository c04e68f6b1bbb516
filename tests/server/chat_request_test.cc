// Bodies of /v1/chat/completions: template arguments, log-probabilities, lengths, and each refusal with its param.
#include "server/openai/chat_request.h"

#include <catch2/catch.hpp>

#include "server/error_mapping.h"
#include "tests/server/parse_request.h"

namespace spin {
namespace {

using testing::ParseChatWith;

TEST_CASE("other fields of chat are checked") {
  struct Row {
    const char* member;
    const char* param;
  };
  const Row rows[] = {
      {R"("logprobs":1)", "logprobs"},
      {R"("top_logprobs":2)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
      {R"("modalities":["text","audio"])", "modalities"},
      {R"("response_format":{"type":"json_object"})", "response_format"},
      {R"("chat_template":"{{ x }}")", "chat_template"},
      {R"("chat_template_kwargs":[])", "chat_template_kwargs"},
      {R"("add_generation_prompt":1)", "add_generation_prompt"},
      {R"("continue_final_message":true,"add_generation_prompt":true)", "continue_final_message"},
      {R"("max_tokens":0)", "max_tokens"}};
  for (const Row& row : rows) {
    INFO(row.member);
    const auto parsed = ParseChatWith(row.member);
    REQUIRE_FALSE(parsed.ok());
    CHECK(ToApiError(parsed.status()).param == row.param);
  }
  const auto good = ParseChatWith(R"("logprobs":true,"top_logprobs":null,"modalities":["text"])");
  REQUIRE(good.ok());
  CHECK(good->common.sampling.logprobs == 0);
  CHECK_FALSE(good->common.sampling.max_tokens.has_value());
}

TEST_CASE("template arguments are passed on and cannot replace the messages") {
  const auto parsed =
      ParseChatWith(R"("chat_template_kwargs":{"enable_thinking":false,"messages":[]})");
  REQUIRE(parsed.ok());
  const jinja::Dict& variables = parsed->prompt.variables.map();
  CHECK_FALSE(variables.Find("enable_thinking")->is_true());
  CHECK(variables.Find("messages")->items().size() == 1);
  CHECK(variables.Find("tools")->is_none());
  CHECK(variables.Find("bos_token")->string_value() == "<s>");
}

}  // namespace
}  // namespace spin
