// Growth and giving way: with too little memory every output stays what it is with enough.
#include <catch2/catch.hpp>

#include <memory>
#include <vector>

#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

struct Run {
  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
};

// `count` requests without max_tokens that run to a context of 2048 tokens.
Run SubmitGrowing(EngineHarness& h, int count) {
  Run run;
  for (int i = 0; i < count; ++i) {
    run.requests.push_back(h.MakeRequest(100 + 10 * i, std::nullopt, static_cast<uint64_t>(i) + 1));
    run.sinks.push_back(h.Submit(run.requests.back()));
  }
  return run;
}

HarnessOptions SmallContext() {
  HarnessOptions options = DefaultHarness();
  options.max_model_len = 2048;
  options.engine.max_model_len = 2048;
  return options;
}

double Preemptions(const EngineHarness& h) {
  const std::string text = h.metrics.PrometheusText();
  const std::string name = "\nspin:num_preemptions_total ";
  return std::stod(text.substr(text.find(name) + name.size()));
}

TEST_CASE("with room for all nothing is preempted") {
  EngineHarness h(SmallContext());
  const Run run = SubmitGrowing(h, 4);
  h.RunUntilIdle();
  for (std::size_t i = 0; i < run.requests.size(); ++i) {
    CHECK(h.Matches(run.requests[i], *run.sinks[i]));
  }
  CHECK(Preemptions(h) == 0);
}

TEST_CASE("resident sequences that outgrow memory are prefilled again, token for token") {
  HarnessOptions options = SmallContext();
  options.slot_extents = 2 * 9;  // two layers; four sequences want four extents each
  EngineHarness h(options);
  const Run run = SubmitGrowing(h, 4);
  h.RunUntilIdle();
  for (std::size_t i = 0; i < run.requests.size(); ++i) {
    CHECK(h.Matches(run.requests[i], *run.sinks[i]));
  }
  CHECK(Preemptions(h) > 0);
  CHECK(h.executor.num_prefills() > 1);
}

TEST_CASE("tiered sequences give way by their slots or their host pages, token for token") {
  HarnessOptions options = SmallContext();
  options.sparse = true;
  options.placement = PlacementPolicy::kTiered;
  SECTION("slots are short") {
    options.slot_extents = 2 * 3;
    options.host_extents = 2 * 64;
  }
  SECTION("host pages are short") {
    options.slot_extents = 2 * 64;
    options.host_extents = 2 * 9;
  }
  EngineHarness h(options);
  const Run run = SubmitGrowing(h, 4);
  h.RunUntilIdle();
  for (std::size_t i = 0; i < run.requests.size(); ++i) {
    CHECK(h.Matches(run.requests[i], *run.sinks[i]));
  }
}

TEST_CASE("the oldest sequence is never preempted for growth") {
  HarnessOptions options = SmallContext();
  options.slot_extents = 2 * 6;
  EngineHarness h(options);
  const Run run = SubmitGrowing(h, 3);
  std::size_t order = 0;
  while (!run.sinks[0]->finished) {
    h.Steps(1);
    for (std::size_t i = 1; i < run.sinks.size(); ++i) order += run.sinks[i]->finished ? 1 : 0;
  }
  CHECK(order == 0);  // it finished first
  h.RunUntilIdle();
  for (std::size_t i = 0; i < run.requests.size(); ++i) {
    CHECK(h.Matches(run.requests[i], *run.sinks[i]));
  }
}

TEST_CASE("a sequence that has all the memory there is ends by its length") {
  HarnessOptions options = SmallContext();
  options.slot_extents = 2 * 2;  // 1024 tokens
  EngineHarness h(options);
  const Request request = h.MakeRequest(500, std::nullopt);
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  REQUIRE(sink->finished);
  CHECK(sink->sequences[0].finish == FinishReason::kLength);
  // 1024 tokens are stored; the last one sampled is not.
  CHECK(sink->sequences[0].tokens.size() == 1024 - 500 + 1);
  std::vector<int32_t> expected = h.Expected(request, 0).tokens;
  expected.resize(sink->sequences[0].tokens.size());
  CHECK(sink->sequences[0].tokens == expected);
}

TEST_CASE("n sequences that outgrow memory together go on one by one") {
  HarnessOptions options = SmallContext();
  options.slot_extents = 2 * 7;  // as many as they are admitted with
  EngineHarness h(options);
  Request request = h.MakeRequest(600, std::nullopt);
  request.sampling.n = 3;
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  CHECK(h.Matches(request, *sink));
  CHECK(Preemptions(h) > 0);
}

TEST_CASE("a preempted request can be cancelled") {
  HarnessOptions options = SmallContext();
  options.slot_extents = 2 * 5;
  EngineHarness h(options);
  const Run run = SubmitGrowing(h, 3);
  while (h.engine.snapshot().preempted == 0) h.Steps(1);
  for (const Request& request : run.requests) h.engine.Cancel(request.id);
  h.Steps(1);
  CHECK(h.memory.usage().slot_extents == 0);
  h.RunUntilIdle();
  CHECK(h.engine.snapshot().preempted == 0);
}

}  // namespace
}  // namespace spin
