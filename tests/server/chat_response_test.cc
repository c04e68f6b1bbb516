// The shapes of /v1/chat/completions, whole and streamed.
#include "server/openai/chat_response.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/server/exchange.h"

namespace spin {
namespace {

using nlohmann::json;
using testing::DeltaOf;
using testing::Exchange;
using testing::kChat;
using testing::With;

TEST_CASE("a chat answer has every key of the schema") {
  Exchange x;
  x.Post("/v1/chat/completions", kChat);
  const Request request = x.serving.backend.request(0);
  CHECK(x.serving.tokenizer.Decode(request.prompt, false) == "[user]Hi\n[assistant]");
  CHECK_FALSE(request.sampling.max_tokens.has_value());
  RequestOutput output;
  output.deltas.push_back(DeltaOf("Hello", FinishReason::kLength));
  output.finished = true;
  output.cached_prompt_tokens = 8;
  x.serving.backend.SendOutput(0, std::move(output));
  const json answer = x.Whole();
  CHECK(answer["id"].get<std::string>().starts_with("chatcmpl-"));
  CHECK(answer["object"] == "chat.completion");
  CHECK(answer["service_tier"].is_null());
  const json& choice = answer["choices"][0];
  CHECK(choice["message"] ==
        json::parse(R"({"role":"assistant","content":"Hello","refusal":null})"));
  CHECK(choice["logprobs"].is_null());
  CHECK(choice["finish_reason"] == "length");
  CHECK(answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 8);
}

TEST_CASE(
    "chat chunks: the role comes with the first token, then text, then the reason; the text is the "
    "same") {
  Exchange x;
  x.Post("/v1/chat/completions", With(kChat, {{"stream", true}}));
  CHECK_FALSE(x.task->PollHead().has_value());  // no token, no head
  x.serving.backend.Send(0, "Hel");
  x.serving.backend.Send(0, "");  // held back: no chunk
  x.serving.backend.Send(0, "lo");
  x.serving.backend.Finish(0);
  const std::vector<json> events = x.Events();
  REQUIRE(events.size() == 4);
  for (const json& event : events) {
    CHECK(event["object"] == "chat.completion.chunk");
    CHECK(event["id"] == events[0]["id"]);
    CHECK(event["created"] == events[0]["created"]);
    CHECK(event["choices"][0].contains("logprobs"));
    CHECK_FALSE(event.contains("usage"));
  }
  CHECK(events[0]["choices"][0]["delta"] == json::parse(R"({"role":"assistant","content":""})"));
  CHECK(events[1]["choices"][0]["delta"] == json::parse(R"({"content":"Hel"})"));
  CHECK(events[1]["choices"][0]["finish_reason"].is_null());
  CHECK(events[2]["choices"][0]["delta"] == json::parse(R"({"content":"lo"})"));
  CHECK(events[3]["choices"][0]["delta"] == json::object());
  CHECK(events[3]["choices"][0]["finish_reason"] == "stop");
}

}  // namespace
}  // namespace spin
