#include "tools/bench/openai_protocol.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace spin {
namespace {

using nlohmann::json;

json BodyOf(const ServeOptions& options, const Prompt& prompt) {
  const auto body = MakeRequestBody(options, "m", prompt);
  REQUIRE(body.ok());
  return json::parse(*body);
}

TEST_CASE("Request bodies carry text, ids or a message") {
  ServeOptions options;
  const Prompt text{.text = "some words", .ids = {}, .output_len = 3};
  CHECK(BodyOf(options, text) ==
        json::parse(R"({"model": "m", "prompt": "some words", "max_tokens": 3,
      "temperature": 0.0, "stream": true, "stream_options": {"include_usage": true}})"));
  options.ignore_eos = true;
  CHECK(BodyOf(options, text)["ignore_eos"] == true);
  options.chat = true;
  CHECK(BodyOf(options, text)["messages"] ==
        json::parse(R"([{"role": "user", "content": "some words"}])"));
  options.chat = false;
  options.token_ids = true;
  CHECK(BodyOf(options, {.text = "", .ids = {5, 6}, .output_len = 1})["prompt"] == json({5, 6}));
}

TEST_CASE("The extra body overrides, and must be an object") {
  ServeOptions options;
  options.extra_body = R"({"temperature": 0.5, "top_p": 0.9})";
  const json body = BodyOf(options, {.text = "x", .ids = {}, .output_len = 1});
  CHECK(body["temperature"] == 0.5);
  CHECK(body["top_p"] == 0.9);
  options.extra_body = "[1]";
  CHECK_FALSE(MakeRequestBody(options, "m", {}).ok());
}

TEST_CASE("Stream events tell text from frames around it") {
  const auto has_content = [](const char* payload) {
    return ParseStreamEvent(payload)->has_content;
  };
  CHECK(has_content(R"({"choices": [{"index": 0, "text": "a"}]})"));
  CHECK(has_content(R"({"choices": [{"delta": {"content": "a"}}]})"));
  CHECK(has_content(R"({"choices": [{"delta": {"reasoning_content": "a"}}]})"));
  CHECK(has_content(R"({"choices": [{"text": "", "token_ids": [7]}]})"));
  CHECK_FALSE(has_content(R"({"choices": [{"delta": {"role": "assistant", "content": ""}}]})"));
  CHECK_FALSE(has_content(R"({"choices": [{"text": "", "finish_reason": "stop"}]})"));
  CHECK_FALSE(has_content(R"({"choices": []})"));
  CHECK_FALSE(has_content(R"({"choices": null})"));
  CHECK_FALSE(has_content(R"({"choices": [null, {"text": null, "token_ids": [ ]}]})"));
  CHECK_FALSE(has_content(R"({"choices": [{"text": "", "logprobs": {"text": "a"}}]})"));
  CHECK_FALSE(has_content(R"({"text": "a", "choices": [{"finish_reason": "stop"}]})"));
  CHECK(has_content(R"({"choices":[{"text":"]}\"{["}]})"));
  CHECK(has_content(" {\n\"choices\" : [ {} , {\"text\" : \"a\"} ] } "));
}

TEST_CASE("Usage, the end and errors of a stream are read") {
  const auto usage =
      ParseStreamEvent(R"({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 9}})");
  CHECK(usage->input_tokens == 4);
  CHECK(usage->output_tokens == 9);
  CHECK(ParseStreamEvent(R"({"choices": [], "usage": null})")->output_tokens == -1);
  CHECK(ParseStreamEvent("[DONE]")->done);
  CHECK(ParseStreamEvent(R"({"error": {"message": "out of room"}})")->error == "out of room");
  for (const char* broken :
       {"", "[]", "1", "nonsense", "{\"choices\":", "{\"choices\": [{\"text\": \"a}]}", "{\"a\" 1}",
        "{\"a\": 1", "{\"a\": 1,}", "{\"a\": }", "{a: 1}", "{\"a\": 1} x", "{\"a\": \"\\",
        "{\"choices\": [1 2]}", "{\"choices\": [,]}"}) {
    INFO(broken);
    CHECK_FALSE(ParseStreamEvent(broken).ok());
  }
}

TEST_CASE("Answers that are not OpenAI's are errors, never crashes") {
  CHECK(*ParseFirstModel(R"({"data": [{"id": "a"}, {"id": "b"}]})") == "a");
  for (const char* body :
       {"", "{}", "[]", R"({"data": []})", R"({"data": [1]})", R"({"data": [{"id": 1}]})"}) {
    INFO(body);
    CHECK_FALSE(ParseFirstModel(body).ok());
  }
  CHECK(ParseErrorMessage(R"({"error": {"message": "no"}})") == "no");
  CHECK(ParseErrorMessage("<html>") == "<html>");
}

}  // namespace
}  // namespace spin
