// The messages and tools of a chat request, and each refusal with its path.
#include "server/openai/chat_messages.h"

#include <catch2/catch.hpp>
#include <string>

#include "server/error_mapping.h"
#include "tests/server/parse_request.h"

namespace spin {
namespace {

using testing::ChatPrompt;
using testing::ParseChat;
using testing::ParseChatWith;

TEST_CASE(
    "messages become the template's: developer is system, parts are lines, calls may stand alone") {
  const auto prompt = ChatPrompt(R"({"messages":[
      {"role":"developer","content":"Be brief"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"tool_calls":[
          {"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"c","content":"42"}]})");
  REQUIRE(prompt.ok());
  CHECK(*prompt == "[system]Be brief\n[user]a\nb\n[assistant](none)\n[tool]42\n[assistant]");
}

TEST_CASE("arguments of tool calls become objects in the client's order") {
  const auto messages =
      NormalizeMessages(*ParseJsonBody(R"({"messages":[{"role":"assistant","tool_calls":[
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
      {R"([{"role":"user","content":"x"},{"role":"user"}])", "messages[1].content",
       "missing_required_parameter"},
      {R"([{"role":"assistant","content":null}])", "messages[0].content",
       "missing_required_parameter"},
      {R"([{"role":"user","content":5}])", "messages[0].content", "invalid_value"},
      {R"([{"role":"user","content":["x"]}])", "messages[0].content[0]", "invalid_value"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0]",
       "invalid_value"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])",
       "messages[0].content[0]", "unsupported_parameter"},
      {R"([{"role":"user","content":[{"type":"input_audio"}]}])", "messages[0].content[0]",
       "unsupported_parameter"},
      {R"([{"role":"assistant","audio":{"id":"a"},"content":"x"}])", "messages[0].audio",
       "unsupported_parameter"},
      {R"([{"role":"assistant","tool_calls":[{}]}])", "messages[0].tool_calls[0].function",
       "invalid_value"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}])",
       "messages[0].tool_calls[0].function.arguments", "invalid_value"},
  };
  for (const Row& row : rows) {
    INFO(row.messages);
    const auto parsed = ParseChat(absl::StrFormat(R"({"messages":%s})", row.messages));
    REQUIRE_FALSE(parsed.ok());
    const ApiError error = ToApiError(parsed.status());
    CHECK(error.http_status == 400);
    CHECK(error.param == row.param);
    CHECK(error.code == row.code);
  }
}

TEST_CASE("tools reach the template; forced tool calls are refused") {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","parameters":{}}}])";
  CHECK(ChatPrompt(R"({"messages":[{"role":"user","content":"Hi"}],)" + tools +
                   R"(,"tool_choice":"auto"})")
            .value() == "{1 tools}[user]Hi\n[assistant]");
  CHECK(ParseChatWith(tools + R"(,"tool_choice":"none")").ok());
  CHECK(ParseChatWith(R"("tools":[])").ok());
  struct Row {
    std::string members;
    const char* param;
    const char* code;
  };
  const Row rows[] = {
      {tools + R"(,"tool_choice":"required")", "tool_choice", "unsupported_parameter"},
      {tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice",
       "unsupported_parameter"},
      {R"("tool_choice":"sometimes")", "tool_choice", "invalid_value"},
      {R"("functions":[])", "functions", "unsupported_parameter"},
      {R"("tools":{})", "tools", "invalid_value"},
      {R"("tools":[{"type":"retrieval"}])", "tools[0].type", "invalid_value"},
      {R"("tools":[{"type":"function"}])", "tools[0].function", "missing_required_parameter"},
      {R"("tools":[{"type":"function","function":{}}])", "tools[0].function.name",
       "invalid_value"}};
  for (const Row& row : rows) {
    INFO(row.members);
    const auto parsed = ParseChatWith(row.members);
    REQUIRE_FALSE(parsed.ok());
    CHECK(ToApiError(parsed.status()).param == row.param);
    CHECK(ToApiError(parsed.status()).code == row.code);
  }
}

}  // namespace
}  // namespace spin
