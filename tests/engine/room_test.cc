// Room that demotions make: they take passes, in which everybody who can goes on; and nobody is
// given up or preempted who only has to wait for them.
#include <catch2/catch.hpp>

#include <memory>
#include <vector>

#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

constexpr int64_t kPatienceNs = int64_t{30} * 1000 * 1000 * 1000;

// Two layers. A Tiered sequence takes one slot extent of each.
HarnessOptions TwoTiers(int32_t slot_extents_a_layer) {
  HarnessOptions options = DefaultHarness();
  options.max_model_len = 2048;
  options.engine.max_model_len = 2048;
  options.sparse = true;
  options.slot_extents = 2 * slot_extents_a_layer;
  options.host_extents = 2 * 8;
  options.max_spills = 1;
  options.max_spill_polls = 20;
  return options;
}

double Preemptions(const EngineHarness& h) {
  const std::string text = h.metrics.PrometheusText();
  const std::string name = "\nspin:num_preemptions_total ";
  return std::stod(text.substr(text.find(name) + name.size()));
}

// Steps until the only running sequence has outgrown HBM and its own demotion is under way.
std::shared_ptr<RecordingSink> OutgrowHbm(EngineHarness& h, const Request& request) {
  auto sink = h.Submit(request);
  while (!h.memory.room_is_coming()) {
    h.Steps(1);
    REQUIRE_FALSE(sink->finished);
  }
  return sink;
}

TEST_CASE("rows go on decoding, the one that is demoted too, until there is room for a newcomer") {
  HarnessOptions options = TwoTiers(4);
  // A better priority waits too: demotion takes nothing away from anybody.
  options.engine.policy = GENERATE(SchedulePolicy::kFcfs, SchedulePolicy::kPriority);
  EngineHarness h(options);
  std::vector<Request> requests = {h.MakeRequest(1100, 300, 1), h.MakeRequest(300, 150, 2)};
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const Request& request : requests) sinks.push_back(h.Submit(request));
  while (sinks[0]->num_outputs < 5 || sinks[1]->num_outputs < 5) h.Steps(1);
  CHECK(h.memory.usage().resident_rows == 2);
  CHECK(h.memory.usage().slot_extents == 8);  // all
  requests.push_back(h.MakeRequest(700, 100, 3));
  requests.back().priority = -1;
  sinks.push_back(h.Submit(requests.back()));
  h.Steps(1);
  REQUIRE(h.memory.room_is_coming());
  const int64_t prefills = h.executor.num_prefills();
  while (h.memory.room_is_coming()) {
    const int64_t before = h.executor.decoded_rows();
    h.Steps(1);
    CHECK(h.executor.decoded_rows() - before == 2);
  }
  CHECK(h.executor.num_spills() == 4);  // two full extents a layer
  CHECK(h.executor.decoded_beside_spills() > 4);
  CHECK(h.memory.usage().demotions == 1);
  CHECK(h.memory.usage().tiered_rows == 1);
  CHECK(h.executor.num_prefills() == prefills + 1);  // in the very pass
  h.RunUntilIdle();
  for (std::size_t i = 0; i < requests.size(); ++i) CHECK(h.Matches(requests[i], *sinks[i]));
  CHECK(Preemptions(h) == 0);
}

TEST_CASE("no running row waits longer than a step for a demotion, however much is copied") {
  HarnessOptions options = TwoTiers(6);
  options.max_spills = 64;
  EngineHarness h(options);
  std::vector<Request> requests = {h.MakeRequest(1990, 50, 1), h.MakeRequest(600, 200, 2)};
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const Request& request : requests) sinks.push_back(h.Submit(request));
  while (sinks[0]->num_outputs < 5 || sinks[1]->num_outputs < 5) h.Steps(1);
  CHECK(h.executor.longest_spill_wait_ns() == 0);
  requests.push_back(h.MakeRequest(700, 100, 3));
  sinks.push_back(h.Submit(requests.back()));
  h.RunUntilIdle();
  const FakeExecutor::Options device;
  CHECK(h.memory.usage().demotions == 1);
  CHECK(h.executor.num_spills() * device.spill_extent_ns > 2 * device.decode_ns);
  CHECK(h.executor.longest_spill_wait_ns() > 0);  // the end of each layer
  CHECK(h.executor.longest_spill_wait_ns() < device.decode_ns);
  for (std::size_t i = 0; i < requests.size(); ++i) CHECK(h.Matches(requests[i], *sinks[i]));
}

TEST_CASE("a sequence alone outgrows HBM: there is nothing to run until its copies have passed") {
  HarnessOptions options = TwoTiers(2);
  SECTION("stepped") {
    EngineHarness h(options);
    const Request request = h.MakeRequest(512, std::nullopt);
    const auto sink = OutgrowHbm(h, request);
    h.RunUntilIdle();
    CHECK(h.Matches(request, *sink));
    CHECK(h.memory.usage().demotions == 1);
    CHECK(Preemptions(h) == 0);
  }
  SECTION("in the loop, which must not sleep") {
    options.real_time = true;
    EngineHarness h(options);
    const Request request = h.MakeRequest(512, std::nullopt);
    const auto sink = h.Submit(request);
    h.engine.Start();
    REQUIRE(h.engine.Drain(kPatienceNs));
    h.engine.Stop();
    CHECK(h.Matches(request, *sink));
    CHECK(h.memory.usage().demotions == 1);
  }
}

TEST_CASE("a request that is cancelled in the middle of its demotion leaves nothing") {
  HarnessOptions options = TwoTiers(2);
  options.host_extents = 2 * 3;
  EngineHarness h(options);
  const Request request = h.MakeRequest(512, std::nullopt);
  OutgrowHbm(h, request);
  h.engine.Cancel(request.id);
  SECTION("the engine is idle when its copies have passed") {
    h.RunUntilIdle();
    CHECK(h.memory.usage().slot_extents == 0);
    CHECK(h.memory.usage().host_extents == 0);
    CHECK(h.memory.usage().demotions == 0);
  }
  SECTION("a request that needs the very extents waits for them and is not refused") {
    const Request next = h.MakeRequest(1400, 100);  // all of the host's
    const auto sink = h.Submit(next);
    h.RunUntilIdle();
    CHECK(h.Matches(next, *sink));
  }
}

TEST_CASE("while a running sequence waits for room nothing new takes what is free") {
  HarnessOptions options = TwoTiers(0);
  options.slot_extents = 2 * 2 + 3;  // its first two extents a layer; too few for two more
  options.reserve_step_tokens = 1000;
  EngineHarness h(options);
  const Request growing = h.MakeRequest(24, std::nullopt);
  const auto growing_sink = OutgrowHbm(h, growing);
  const Request small = h.MakeRequest(20, 50, 2);
  const auto small_sink = h.Submit(small);
  while (h.memory.room_is_coming()) {
    CHECK(h.memory.usage().resident_rows == 1);
    h.Steps(1);
  }
  CHECK(h.memory.usage().tiered_rows == 1);
  h.RunUntilIdle();
  CHECK(h.Matches(growing, *growing_sink));
  CHECK(h.Matches(small, *small_sink));
}

TEST_CASE("nobody behind takes the room that is free while more is coming") {
  EngineHarness h(TwoTiers(5));
  std::vector<Request> requests = {h.MakeRequest(1600, 300, 1)};  // 4 extents a layer
  std::vector<std::shared_ptr<RecordingSink>> sinks = {h.Submit(requests[0])};
  while (sinks[0]->num_outputs < 2) h.Steps(1);
  requests.push_back(h.MakeRequest(1400, 50, 2));
  requests.back().sampling.n = 2;                  // 2 or 4 extents a layer
  requests.push_back(h.MakeRequest(1450, 10, 3));  // behind it; 1 or 3
  for (std::size_t i = 1; i < 3; ++i) sinks.push_back(h.Submit(requests[i]));
  h.Steps(1);
  REQUIRE(h.memory.room_is_coming());
  while (h.memory.room_is_coming()) {
    CHECK(h.memory.usage().resident_rows == 1);
    CHECK(h.memory.usage().tiered_rows == 0);
    h.Steps(1);
  }
  CHECK(h.memory.usage().demotions == 1);
  CHECK(h.memory.usage().tiered_rows == 1);
  CHECK(h.memory.usage().resident_rows == 2);  // all that has come is theirs
  h.RunUntilIdle();
  for (std::size_t i = 0; i < requests.size(); ++i) CHECK(h.Matches(requests[i], *sinks[i]));
  CHECK(Preemptions(h) == 0);
}

}  // namespace
}  // namespace spin
