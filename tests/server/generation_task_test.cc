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

TEST_CASE("an aborted sequence never shows as a finish reason") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}});
  x.serving.backend.Send(0, "x", FinishReason::kAbort, true);
  const auto response = x.task->PollHead();
  CHECK(response->status == 503);
  CHECK(response->body.find("abort") == std::string::npos);
}

TEST_CASE("a reader that is too slow gets an error at the end of what was kept") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}, {"stream", true}});
  int taken = 0;
  while (taken < 100'000 && x.serving.backend.Send(0, "x")) ++taken;
  CHECK(taken < 100'000);
  const std::vector<json> events = x.Events();
  CHECK(events.size() == static_cast<std::size_t>(taken) + 1);
  CHECK(events.back()["error"]["code"] == "rate_limit_exceeded");
}

}  // namespace
}  // namespace spin
