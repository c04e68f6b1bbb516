// The shapes of /v1/completions, whole and streamed.
#include "server/openai/completion_response.h"

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

TEST_CASE("a completion has every key of the schema") {
  Exchange x;
  x.Post("/v1/completions", {{"model", "tiny"}, {"prompt", "Hi"}});
  CHECK_FALSE(x.task->PollHead().has_value());
  const Request request = x.serving.backend.request(0);
  CHECK(request.prompt == std::vector<int32_t>{256, 'H', 'i'});
  CHECK(request.sampling.max_tokens == 16);
  x.serving.backend.Send(0, "wor");
  CHECK(x.wakes == 1);
  x.serving.backend.Finish(0, "ld");
  const json answer = x.Whole();
  CHECK(answer["id"].get<std::string>().starts_with("cmpl-"));
  CHECK(answer["id"].get<std::string>().size() >= 29);
  CHECK(answer["object"] == "text_completion");
  CHECK(answer["created"].get<int64_t>() > 1'600'000'000);
  CHECK(answer["model"] == "tiny");
  CHECK(answer["system_fingerprint"] == "spin-test");
  const json& choice = answer["choices"][0];
  CHECK(choice["text"] == "world");
  CHECK(choice["index"] == 0);
  CHECK(choice["logprobs"].is_null());
  CHECK(choice["finish_reason"] == "stop");
  CHECK(choice["stop_reason"].is_null());
  CHECK_FALSE(choice.contains("token_ids"));
  CHECK(answer["usage"] == json::parse(R"({"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,
      "prompt_tokens_details":{"cached_tokens":0}})"));
}

TEST_CASE("several prompts and choices are numbered prompt by prompt, and each ends by itself") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", {"a", "b"}}, {"n", 2}, {"stream", true}});
  REQUIRE(x.serving.backend.num_requests() == 2);
  CHECK(x.serving.backend.request(0).sampling.n == 2);
  for (std::size_t prompt = 0; prompt < 2; ++prompt) {
    x.serving.backend.Send(prompt, "x", FinishReason::kLength, false, 1);
    x.serving.backend.Send(prompt, "y", FinishReason::kStop, true, 0);
  }
  std::vector<std::string> texts(4);
  std::vector<int> ends(4);
  for (const json& event : x.Events()) {
    const json& choice = event["choices"][0];
    texts[choice["index"]] += choice["text"];
    ends[choice["index"]] += choice["finish_reason"].is_null() ? 0 : 1;
  }
  CHECK(texts == std::vector<std::string>{"y", "x", "y", "x"});
  CHECK(ends == std::vector<int>{1, 1, 1, 1});
}

TEST_CASE("max_tokens 0 with echo runs the prompt alone") {
  Exchange x;
  x.Post("/v1/completions",
         {{"prompt", {72, 105}}, {"echo", true}, {"max_tokens", 0}, {"stream", true}});
  CHECK(x.serving.backend.request(0).sampling.max_tokens == 0);
  CHECK(x.serving.backend.request(0).sampling.prompt_logprobs == 0);
  x.serving.backend.Send(0, "", FinishReason::kLength, true);
  const std::vector<json> events = x.Events();
  REQUIRE(events.size() == 1);
  CHECK(events[0]["choices"][0]["text"] == "Hi");
  CHECK(events[0]["choices"][0]["finish_reason"] == "length");
}

TEST_CASE("token ids are returned on request, whole and streamed") {
  Exchange whole;
  whole.Post("/v1/completions",
             {{"prompt", "H"}, {"return_token_ids", true}, {"prompt_logprobs", 1}});
  RequestOutput output;
  output.prompt_logprobs.push_back(testing::SampledOf('H'));
  output.deltas.push_back(DeltaOf("ok", FinishReason::kStop));
  output.deltas[0].stop_token = 7;
  output.finished = true;
  whole.serving.backend.SendOutput(0, std::move(output));
  const json choice = whole.Whole()["choices"][0];
  CHECK(choice["token_ids"] == json::array({'o', 'k'}));
  CHECK(choice["prompt_token_ids"] == json::array({256, 'H'}));
  CHECK(choice["stop_reason"] == 7);
  CHECK(choice["prompt_logprobs"][0].is_null());
  CHECK(choice["prompt_logprobs"][1]["73"]["rank"] == 1);
  CHECK(choice["prompt_logprobs"][1]["72"]["logprob"] == -1.0);

  Exchange stream;
  stream.Post("/v1/chat/completions", With(kChat, {{"stream", true}, {"return_token_ids", true}}));
  stream.serving.backend.Send(0, "a");
  stream.serving.backend.Finish(0);
  const std::vector<json> events = stream.Events();
  REQUIRE(events.size() == 3);
  CHECK(events[0]["prompt_token_ids"].size() == 20);
  CHECK(events[1]["choices"][0]["token_ids"] == json::array({'a'}));
}

TEST_CASE("invalid UTF-8 from the engine becomes a replacement character") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}});
  x.serving.backend.Finish(0, "a\xFFz");
  CHECK(x.Whole()["choices"][0]["text"] == "a\xEF\xBF\xBDz");
}

}  // namespace
}  // namespace spin
