// Log-probabilities as clients read them.
#include "server/openai/logprobs_format.h"

#include <catch2/catch.hpp>
#include <limits>
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

TEST_CASE("completion log-probabilities, and echo with those of the prompt") {
  Exchange x;
  x.Post("/v1/completions",
         {{"prompt", "\xC3\xA9!"}, {"logprobs", 1}, {"echo", true}, {"max_tokens", 3}});
  CHECK(x.serving.backend.request(0).sampling.logprobs == 1);
  CHECK(x.serving.backend.request(0).sampling.prompt_logprobs == 1);
  RequestOutput output;
  for (const int32_t token : {0xC3, 0xA9, int32_t{'!'}})
    output.prompt_logprobs.push_back(testing::SampledOf(token));
  output.deltas.push_back(DeltaOf("ab", FinishReason::kStop));
  output.deltas[0].tokens[1].logprob = -std::numeric_limits<float>::infinity();
  output.deltas[0].stop_string = "zz";
  output.finished = true;
  x.serving.backend.SendOutput(0, std::move(output));
  const json choice = x.Whole()["choices"][0];
  CHECK(choice["text"] == "\xC3\xA9!ab");
  CHECK(choice["stop_reason"] == "zz");
  const json& logprobs = choice["logprobs"];
  CHECK(logprobs["tokens"] == json::array({"<s>", "bytes:\\xc3", "bytes:\\xa9", "!", "a", "b"}));
  CHECK(logprobs["text_offset"] == json::array({0, 0, 1, 1, 2, 3}));
  CHECK(logprobs["token_logprobs"] == json::array({nullptr, -1.0, -1.0, -1.0, -1.0, -9999.0}));
  CHECK(logprobs["top_logprobs"][0].is_null());
  CHECK(logprobs["top_logprobs"][4] == json::parse(R"({"b":-0.5,"a":-1.0})"));
  CHECK(logprobs["top_logprobs"][5] == json::parse(R"({"c":-0.5,"b":-9999.0})"));
}

TEST_CASE("chat log-probabilities carry bytes and alternatives") {
  Exchange x;
  x.Post("/v1/chat/completions", With(kChat, {{"logprobs", true}, {"top_logprobs", 2}}));
  x.serving.backend.Finish(0, "a");
  const json logprobs = x.Whole()["choices"][0]["logprobs"];
  CHECK(logprobs["refusal"].is_null());
  const json& entry = logprobs["content"][0];
  CHECK(entry["token"] == "a");
  CHECK(entry["logprob"] == -1.0);
  CHECK(entry["bytes"] == json::array({97}));
  REQUIRE(entry["top_logprobs"].size() == 2);
  CHECK(entry["top_logprobs"][0]["token"] == "b");
  CHECK(entry["top_logprobs"][0]["bytes"] == json::array({98}));
}

}  // namespace
}  // namespace spin
