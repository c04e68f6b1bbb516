// Slots that are lent while they are free, and Tiered sequences that give slots and nothing else.
#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

constexpr const char* kHandedOut = "spin:slot_buffer_changes_total{change=\"handed_out\"}";
constexpr const char* kReclaimed = "spin:slot_buffer_changes_total{change=\"reclaimed\"}";

// Two layers, 32 pages of 16 tokens an extent.
HarnessOptions Tiered(int32_t slot_extents_a_layer, int32_t host_extents_a_layer) {
  HarnessOptions options = DefaultHarness();
  options.max_model_len = 2048;
  options.engine.max_model_len = 2048;
  options.placement = PlacementPolicy::kTiered;
  options.slot_extents = 2 * slot_extents_a_layer;
  options.host_extents = 2 * host_extents_a_layer;
  return options;
}

double Metric(const EngineHarness& h, const std::string& name) {
  const std::string text = h.metrics.PrometheusText();
  const auto at = text.find("\n" + name + " ");
  REQUIRE(at != std::string::npos);
  return std::stod(text.substr(at + name.size() + 2));
}

struct Run {
  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;

  void Submit(EngineHarness& h, int32_t prompt_tokens, std::optional<int32_t> max_tokens) {
    requests.push_back(h.MakeRequest(prompt_tokens, max_tokens, requests.size() + 1));
    sinks.push_back(h.Submit(requests.back()));
  }
  void CheckOutputs(const EngineHarness& h) const {
    for (std::size_t i = 0; i < requests.size(); ++i) CHECK(h.Matches(requests[i], *sinks[i]));
  }
};

TEST_CASE("where slots alone are short sequences are suspended, and nothing is prefilled again") {
  EngineHarness h(Tiered(9, 64));  // every page is mandatory: four sequences want 16 a layer
  Run run;
  for (int i = 0; i < 4; ++i) run.Submit(h, 100 + 10 * i, std::nullopt);
  int32_t most_suspended = 0;
  while (h.engine.Step()) {
    h.engine.CheckInvariants();
    most_suspended = std::max(most_suspended, h.memory.usage().suspended_rows);
  }
  run.CheckOutputs(h);
  CHECK(most_suspended >= 2);
  CHECK(Metric(h, "spin:num_preemptions_total") >= 2);
  CHECK(h.executor.num_prefills() == 1);
}

TEST_CASE("a sequence that holds every slot ends by its length, whoever is suspended beside it") {
  HarnessOptions options = Tiered(2, 64);  // 1024 tokens
  options.reserve_step_tokens = 300;
  EngineHarness h(options);
  Run run;
  for (int i = 0; i < 2; ++i) run.Submit(h, 100, std::nullopt);
  h.RunUntilIdle();
  for (std::size_t i = 0; i < run.requests.size(); ++i) {
    REQUIRE(run.sinks[i]->finished);
    CHECK(run.sinks[i]->sequences[0].finish == FinishReason::kLength);
    CHECK(run.sinks[i]->sequences[0].tokens.size() == 1024 - 100 + 1);
    std::vector<int32_t> expected = h.Expected(run.requests[i], 0).tokens;
    expected.resize(run.sinks[i]->sequences[0].tokens.size());
    CHECK(run.sinks[i]->sequences[0].tokens == expected);
  }
  CHECK(Metric(h, "spin:num_preemptions_total") > 0);
}

TEST_CASE("free slots are lent to running sequences, and a newcomer takes them back") {
  HarnessOptions options = Tiered(6, 64);
  options.sparse = true;  // 20 slots at least, 38 at most: one extent a layer, or two
  EngineHarness h(options);
  Run run;
  for (int i = 0; i < 2; ++i) run.Submit(h, 900, 300);
  while (run.sinks[1]->num_outputs < 5) h.Steps(1);
  CHECK(h.memory.usage().slot_extents == 8);
  CHECK(Metric(h, "spin:slot_buffer_extents") == 4);
  CHECK(Metric(h, kHandedOut) == 4);
  for (int i = 0; i < 4; ++i) run.Submit(h, 300, 100);
  while (run.sinks[5]->num_outputs < 2) h.Steps(1);
  CHECK(Metric(h, "spin:slot_buffer_extents") == 0);
  CHECK(Metric(h, kReclaimed) == 4);
  CHECK(h.memory.usage().tiered_rows == 6);
  h.RunUntilIdle();
  run.CheckOutputs(h);
  CHECK(Metric(h, "spin:num_preemptions_total") == 0);
  // When the newcomers had ended they were lent again.
  CHECK(Metric(h, kHandedOut) > 4);
  CHECK(Metric(h, "spin:slot_buffer_extents") == 0);
}

TEST_CASE("a request that waits for host pages keeps nobody from slots that it does not need") {
  HarnessOptions options = Tiered(4, 3);
  options.sparse = true;
  EngineHarness h(options);
  Run run;
  run.Submit(h, 900, 100);
  while (run.sinks[0]->num_outputs < 1) h.Steps(1);
  run.Submit(h, 900, 100);  // two host extents a layer, of one that is left
  while (run.sinks[0]->num_outputs < 5) h.Steps(1);
  CHECK(h.engine.snapshot().waiting == 1);
  CHECK(h.memory.usage().buffer_extents == 2);
  h.RunUntilIdle();
  run.CheckOutputs(h);
}

}  // namespace
}  // namespace spin
