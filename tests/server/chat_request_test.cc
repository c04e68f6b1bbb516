// Bodies of /v1/chat/completions: messages, tools, template arguments, and each refusal with its param.
#include "server/openai/chat_request.h"

#include <catch2/catch.hpp>

#include "server/error_mapping.h"
#include "server/openai/chat_messages.h"
#include "server/openai/prompt_builder.h"
#include "tests/server/serving_fakes.h"

namespace spin {
namespace {

using testing::TestServing;

absl::StatusOr<ChatRequest> Parse(const std::string& text) {
  TestServing serving;
  SPIN_ASSIGN_OR_RETURN(const Json body, ParseJsonBody(text));
  return ParseChatRequest(body, serving.context.model);
}

absl::StatusOr<ChatRequest> ParseWith(const std::string& members) {
  return Parse(R"({"messages":[{"role":"user","content":"Hi"}],)" + members + "}");
}

absl::StatusOr<std::string> PromptOf(const std::string& text) {
  TestServing serving;
  SPIN_ASSIGN_OR_RETURN(const ChatRequest request, Parse(text));
  SPIN_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, TokenizeChat(serving.context, request.prompt));
  return serving.tokenizer.Decode(tokens, false);
}

TEST_CASE("messages become the template's: developer is system, parts are lines, calls may stand alone") {
  const auto prompt = PromptOf(R"({"messages":[
      {"role":"developer","content":"Be brief"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"c","content":"42"}]})");
  REQUIRE(prompt.ok());
  CHECK(*prompt == "[system]Be brief\n[user]a\nb\n[assistant](none)\n[tool]42\n[assistant]");
}

TEST_CASE("arguments of tool calls become objects in the client's order") {
  const auto messages = NormalizeMessages(*ParseJsonBody(R"({"messages":[{"role":"assistant","tool_calls":[
      {"function":{"name":"f","arguments":"{\"z\":1,\"a\":2}"}},{"function":{"name":"g"}}]}]})"));
  REQUIRE(messages.ok());
  const Json& calls = (*messages)[0]["tool_calls"];
  CHECK(calls[0]["function"]["arguments"].dump() == R"({"z":1,"a":2})");
  CHECK(calls[1]["function"]["arguments"].dump() == "{}");
}

TEST_CASE("each bad message is refused with its path") {
  struct Row {
    const char* messages;
    const char* param;
    const char* code;
  };
  const Row rows[] = {
      {"null", "messages", "missing_required_parameter"},
      {"[]", "messages", "invalid_value"},
      {"{}", "messages", "invalid_value"},
      {"[1]", "messages[0]", "invalid_value"},
      {R"([{"content":"x"}])", "messages[0].role", "missing_required_parameter"},
      {R"([{"role":"robot","content":"x"}])", "messages[0].role", "invalid_value"},
      {R"([{"role":7,"content":"x"}])", "messages[0].role", "invalid_value"},
      {R"([{"role":"user","content":"x"},{"role":"user"}])", "messages[1].content", "missing_required_parameter"},
      {R"([{"role":"assistant","content":null}])", "messages[0].content", "missing_required_parameter"},
      {R"([{"role":"user","content":5}])", "messages[0].content", "invalid_value"},
      {R"([{"role":"user","content":["x"]}])", "messages[0].content[0]", "invalid_value"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0]", "invalid_value"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])", "messages[0].content[0]",
       "unsupported_parameter"},
      {R"([{"role":"user","content":[{"type":"input_audio"}]}])", "messages[0].content[0]", "unsupported_parameter"},
      {R"([{"role":"assistant","audio":{"id":"a"},"content":"x"}])", "messages[0].audio", "unsupported_parameter"},
      {R"([{"role":"assistant","tool_calls":[{}]}])", "messages[0].tool_calls[0].function", "invalid_value"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}])",
       "messages[0].tool_calls[0].function.arguments", "invalid_value"},
  };
  for (const Row& row : rows) {
    INFO(row.messages);
    const auto parsed = Parse(absl::StrFormat(R"({"messages":%s})", row.messages));
    REQUIRE_FALSE(parsed.ok());
    const ApiError error = ToApiError(parsed.status());
    CHECK(error.http_status == 400);
    CHECK(error.param == row.param);
    CHECK(error.code == row.code);
  }
}

TEST_CASE("tools reach the template; forced tool calls are refused") {
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f","parameters":{}}}])";
  CHECK(PromptOf(R"({"messages":[{"role":"user","content":"Hi"}],)" + tools + R"(,"tool_choice":"auto"})").value() ==
        "{1 tools}[user]Hi\n[assistant]");
  CHECK(ParseWith(tools + R"(,"tool_choice":"none")").ok());
  CHECK(ParseWith(R"("tools":[])").ok());
  struct Row {
    std::string members;
    const char* param;
    const char* code;
  };
  const Row rows[] = {{tools + R"(,"tool_choice":"required")", "tool_choice", "unsupported_parameter"},
                      {tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice",
                       "unsupported_parameter"},
                      {R"("tool_choice":"sometimes")", "tool_choice", "invalid_value"},
                      {R"("functions":[])", "functions", "unsupported_parameter"},
                      {R"("tools":{})", "tools", "invalid_value"},
                      {R"("tools":[{"type":"retrieval"}])", "tools[0].type", "invalid_value"},
                      {R"("tools":[{"type":"function"}])", "tools[0].function", "missing_required_parameter"},
                      {R"("tools":[{"type":"function","function":{}}])", "tools[0].function.name", "invalid_value"}};
  for (const Row& row : rows) {
    INFO(row.members);
    const auto parsed = ParseWith(row.members);
    REQUIRE_FALSE(parsed.ok());
    CHECK(ToApiError(parsed.status()).param == row.param);
    CHECK(ToApiError(parsed.status()).code == row.code);
  }
}

TEST_CASE("other fields of chat are checked") {
  struct Row {
    const char* member;
    const char* param;
  };
  const Row rows[] = {{R"("logprobs":1)", "logprobs"},
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
    const auto parsed = ParseWith(row.member);
    REQUIRE_FALSE(parsed.ok());
    CHECK(ToApiError(parsed.status()).param == row.param);
  }
  const auto good = ParseWith(R"("logprobs":true,"top_logprobs":null,"modalities":["text"])");
  REQUIRE(good.ok());
  CHECK(good->common.sampling.logprobs == 0);
  CHECK_FALSE(good->common.sampling.max_tokens.has_value());
}

TEST_CASE("template arguments are passed on and cannot replace the messages") {
  const auto parsed = ParseWith(R"("chat_template_kwargs":{"enable_thinking":false,"messages":[]})");
  REQUIRE(parsed.ok());
  const jinja::Dict& variables = parsed->prompt.variables.map();
  CHECK_FALSE(variables.Find("enable_thinking")->is_true());
  CHECK(variables.Find("messages")->items().size() == 1);
  CHECK(variables.Find("tools")->is_none());
  CHECK(variables.Find("bos_token")->string_value() == "<s>");
}

TEST_CASE("continue_final_message ends the prompt inside the last message") {
  const std::string head = R"({"continue_final_message":true,"messages":[{"role":"user","content":"Hi"},)";
  CHECK(PromptOf(head + R"({"role":"assistant","content":"Once upon "}]})").value() ==
        "[user]Hi\n[assistant]Once upon ");
  const auto none = PromptOf(
      head + R"({"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}]})");
  CHECK(ToApiError(none.status()).param == "continue_final_message");
}

TEST_CASE("a template that refuses is a 400 with its words") {
  const auto prompt = PromptOf(R"({"messages":[{"role":"user","content":"refuse"}]})");
  const ApiError error = ToApiError(prompt.status());
  CHECK(error.http_status == 400);
  CHECK(error.param == "messages");
  CHECK(error.message.find("conversation roles must alternate") != std::string::npos);
}

TEST_CASE("too long a prompt is refused with the sentence that clients look for") {
  CHECK(CheckContextLength(100, 28, 128, "messages").ok());
  CHECK(CheckContextLength(127, std::nullopt, 128, "messages").ok());
  CHECK(MessageOf(CheckContextLength(39000, 1000, 32768, "prompt")) ==
        "This model's maximum context length is 32768 tokens. However, your prompt resulted in 39000 tokens. Please "
        "reduce the length of the prompt.");
  const absl::Status status = CheckContextLength(32000, 1000, 32768, "messages");
  CHECK(MessageOf(status) ==
        "This model's maximum context length is 32768 tokens. However, you requested 33000 tokens (32000 in the "
        "messages, 1000 in the completion). Please reduce the length of the messages or completion.");
  CHECK(ToApiError(status).code == "context_length_exceeded");
  CHECK(ToApiError(status).param == "messages");
  CHECK(ToApiError(CheckContextLength(0, 1, 128, "prompt")).code == "invalid_value");
}

}  // namespace
}  // namespace spin
