// Outputs to answers: usage, failures, slow readers, greedy choices.
#include "server/openai/generation_task.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/server/exchange.h"

namespace spin {
namespace {

using nlohmann::json;
using testing::Exchange;
using testing::With;

TEST_CASE("usage while streaming: null and at the end, or running on every chunk") {
  Exchange x;
  const bool continuous = GENERATE(false, true);
  x.Post("/v1/completions",
         {{"prompt", "Hi"},
          {"stream", true},
          {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", continuous}}}});
  x.serving.backend.Send(0, "ab");
  x.serving.backend.Finish(0, "c");
  const std::vector<json> events = x.Events();
  REQUIRE(events.size() == 3);
  CHECK(events[2]["choices"] == json::array());
  CHECK(events[2]["usage"]["completion_tokens"] == 3);
  if (continuous) {
    CHECK(events[0]["usage"]["completion_tokens"] == 2);
    CHECK(events[1]["usage"]["total_tokens"] == 6);
  } else {
    CHECK(events[0]["usage"].is_null());
    CHECK(events[0].contains("usage"));
  }
}

RequestOutput LastOutput(const RequestSummary& summary) {
  RequestOutput output;
  output.deltas.push_back(testing::DeltaOf("c", FinishReason::kStop));
  output.finished = true;
  output.summary = summary;
  return output;
}

TEST_CASE("usage.spin is there when asked, in the last chunk of a stream") {
  const bool stream = GENERATE(false, true);
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "Hi"}, {"stream", stream}, {"spin_usage", true}});
  CHECK(x.serving.backend.request(0).wants_summary);
  x.serving.backend.Send(0, "ab");
  x.serving.backend.SendOutput(0, LastOutput({.queue_ns = 1'500'000,
                                              .prefill_ns = 20'000'000,
                                              .decode_ns = 40'000'000,
                                              .placement = Placement::kTiered,
                                              .demotions = 1,
                                              .context_tokens = 6,
                                              .steps = 2,
                                              .attended_tokens = 9,
                                              .retrieved = {.hits = 3, .misses = 1, .evictions = 0},
                                              .fetched_bytes = 4096}));
  const json usage = stream ? x.Events().back()["usage"] : x.Whole()["usage"];
  CHECK(usage["completion_tokens"] == 3);
  CHECK(usage["spin"] == json{{"queue_ms", 1.5},
                              {"prefill_ms", 20.0},
                              {"decode_ms", 40.0},
                              {"placement", "tiered"},
                              {"demotions", 1},
                              {"context_tokens", 6},
                              {"attended_tokens", 4.5},
                              {"hit_ratio", 0.75},
                              {"fetched_bytes", 4096}});
}

TEST_CASE("usage.spin of several prompts is one, and figures without a base are null") {
  Exchange x;
  x.Post("/v1/chat/completions", With(testing::kChat, {{"spin_usage", false}}));
  x.serving.backend.Finish(0, "x");
  CHECK_FALSE(x.serving.backend.request(0).wants_summary);
  CHECK_FALSE(x.Whole()["usage"].contains("spin"));

  x.Post("/v1/completions", {{"prompt", {"a", "b"}}, {"spin_usage", true}});
  RequestSummary short_one, long_one;
  short_one.placement = long_one.placement = Placement::kResident;
  short_one.queue_ns = 1'000'000;
  short_one.context_tokens = 3;
  long_one.queue_ns = 2'000'000;
  long_one.context_tokens = 5;
  x.serving.backend.SendOutput(1, LastOutput(long_one));
  x.serving.backend.SendOutput(2, LastOutput(short_one));
  const json spin = x.Whole()["usage"]["spin"];
  CHECK(spin["queue_ms"] == 2.0);
  CHECK(spin["context_tokens"] == 5);
  CHECK(spin["placement"] == "resident");
  CHECK(spin["attended_tokens"].is_null());
  CHECK(spin["hit_ratio"].is_null());
}

TEST_CASE("greedy choices are computed once") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "a"}, {"n", 3}, {"temperature", 0}});
  CHECK(x.serving.backend.request(0).sampling.n == 1);
  x.serving.backend.Finish(0, "same");
  const json answer = x.Whole();
  REQUIRE(answer["choices"].size() == 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(answer["choices"][i]["index"] == i);
    CHECK(answer["choices"][i]["text"] == "same");
  }
  CHECK(answer["usage"]["completion_tokens"] == 12);
  CHECK(answer["usage"]["prompt_tokens"] == 2);
}

TEST_CASE("a request that the engine gives up is that error, whatever it had generated") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}});
  x.serving.backend.Send(0, "x");
  x.serving.backend.Fail(0, Unavailable("draining"));
  const auto response = x.task->PollHead();
  CHECK(response->status == 503);
  CHECK(json::parse(response->body)["error"]["message"].get<std::string>().starts_with("draining"));
}

TEST_CASE("a reader that is too slow gets an error at the end of what was kept") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}, {"stream", true}});
  int taken = 0;
  while (taken < 100'000 && x.serving.backend.Send(0, "x")) ++taken;
  CHECK(taken < 100'000);
  const std::vector<json> events = x.Events();
  CHECK(events.size() == static_cast<std::size_t>(taken) + 1);
  CHECK(events.back()["error"]["type"] == "invalid_request_error");
}

}  // namespace
}  // namespace spin
