// The schedules of a decode layer: in order, missing pages fetched beside the attention to what is ready, and rows in
// groups. The second sums a list in another order, so it equals the first within rounding; to the bit where nothing is
// missing. The third does for each row what the first does: on the CPU to the bit.
#include <catch2/catch.hpp>

#include <vector>

#include "models/overlap_policy.h"
#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kSteps = 40;

const std::vector<std::vector<int32_t>>& Prompts() {
  static const std::vector<std::vector<int32_t>> prompts = {
      RandomPrompt(1, 1), RandomPrompt(500, 2), RandomPrompt(1024, 3), RandomPrompt(1537, 4)};
  return prompts;
}

Generations RunWith(ModelRunnerOptions options, RetrieveOverlap overlap,
                    RetrieveCounters* counters = nullptr) {
  options.overlap = overlap;
  ModelRunner runner(options);
  Generations out = Run(runner, Prompts(), kSteps);
  if (counters != nullptr) *counters = runner.executor().retrieve_counters();
  return out;
}

TEST_CASE(
    "attending to what is ready first equals steps in order within rounding, and fetches the "
    "same") {
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  options.sparse = Quest(128);
  options.placement = PlacementPolicy::kTiered;
  options.min_buffer_ratio = 0.5;
  options.eviction = GENERATE(Eviction::kBucketed, Eviction::kNone);
  options.poison_free_pages = true;
  INFO("eviction " << static_cast<int>(options.eviction));
  RetrieveCounters serial, overlapped;
  const Generations expected = RunWith(options, RetrieveOverlap::kNever, &serial);
  const Generations out = RunWith(options, RetrieveOverlap::kReadyFirst, &overlapped);
  CHECK(AllFinite(out));
  CHECK(Difference(out, expected, OrderRounding(dtype)) == "");
  CHECK(Difference(out, expected) != "");  // it was another order
  CHECK(overlapped.misses > 100);
  // Rounding may choose other pages now and then.
  CHECK(std::abs(double(overlapped.misses) / double(serial.misses) - 1) < 0.1);
}

TEST_CASE("rows in groups equal steps in order to the bit, and fetch the same") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const size_t batch = GENERATE(1, 2, 3, 4);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  if (GENERATE(false, true)) {
    options.sparse = Quest(128);
    options.min_buffer_ratio = 0.5;
  }
  options.placement = PlacementPolicy::kTiered;
  options.poison_free_pages = true;
  const std::vector<std::vector<int32_t>> prompts(Prompts().end() - static_cast<int64_t>(batch),
                                                  Prompts().end());
  const auto run = [&](RetrieveOverlap overlap, RetrieveCounters& counters) {
    options.overlap = overlap;
    ModelRunner runner(options);
    Generations out = Run(runner, prompts, kSteps);
    counters = runner.executor().retrieve_counters();
    return out;
  };
  RetrieveCounters serial, groups;
  const Generations expected = run(RetrieveOverlap::kNever, serial);
  CHECK(Difference(run(RetrieveOverlap::kRowGroups, groups), expected) == "");
  CHECK(AllFinite(expected));
  CHECK(groups.hits == serial.hits);
  CHECK(groups.misses == serial.misses);
  CHECK(groups.hits > 0);
}

TEST_CASE("groups cover a batch, each place once") {
  for (int32_t max_batch = 1; max_batch <= 65; ++max_batch) {
    CHECK(RowGroupBegin(0, max_batch) == 0);
    CHECK(RowGroupBegin(kNumRowGroups, max_batch) == max_batch);
    for (int32_t group = 0; group < kNumRowGroups; ++group) {
      CHECK(RowGroupBegin(group, max_batch) <= RowGroupBegin(group + 1, max_batch));
    }
  }
}

TEST_CASE("where nothing is missing attending to what is ready first has the same bits") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  SECTION("Resident") {
    options.sparse = Quest(128);
    options.placement = PlacementPolicy::kResident;
  }
  SECTION("Tiered with slots for all pages") {
    options.placement = PlacementPolicy::kTiered;
  }
  RetrieveCounters counters;
  const Generations out = RunWith(options, RetrieveOverlap::kReadyFirst, &counters);
  CHECK(counters.misses == 0);
  CHECK(Difference(out, RunWith(options, RetrieveOverlap::kNever)) == "");
}

TEST_CASE("a row that is resumed with nothing in HBM") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Quest(128);
  options.placement = PlacementPolicy::kTiered;
  const std::vector<int32_t> prompt = RandomPrompt(700, 5);
  const auto generate = [&](RetrieveOverlap overlap) {
    options.overlap = overlap;
    ModelRunner runner(options);
    runner.sampling().num_logprobs = kMaxLogprobs;
    const std::vector<RowId> row = runner.Start(prompt, 800);
    Generations out = {{runner.first_token(row[0])}};
    for (int step = 0; step < 30; ++step) {
      if (step % 10 == 5) {
        runner.memory().Suspend(row[0]);
        runner.Commit();
        REQUIRE(runner.memory().Resume(row[0]));
      }
      out[0].push_back(runner.Step(row)[0]);
    }
    return out;
  };
  const Generations expected = generate(RetrieveOverlap::kNever);
  CHECK(Difference(generate(RetrieveOverlap::kReadyFirst), expected, OrderRounding(DType::kF32)) ==
        "");
  CHECK(Difference(generate(RetrieveOverlap::kRowGroups), expected) == "");
}

TEST_CASE("the policy follows the bytes of the last step, where the device overlaps") {
  constexpr uint64_t kStep = 36 * (256 << 10);
  uint64_t bytes = 0;
  const auto observe = [&](OverlapPolicy& policy, uint64_t of_step) {
    policy.Observe(bytes += of_step);
    return policy.schedule(8);
  };
  OverlapPolicy automatic(RetrieveOverlap::kAuto, true, 36, 32);
  CHECK(automatic.schedule(8) == StepSchedule::kInOrder);
  CHECK(observe(automatic, kStep - 1) == StepSchedule::kInOrder);
  CHECK(observe(automatic, kStep) == StepSchedule::kReadyFirst);
  CHECK(observe(automatic, kStep / 2) == StepSchedule::kReadyFirst);
  CHECK(observe(automatic, kStep / 2 - 1) == StepSchedule::kInOrder);
  CHECK(observe(automatic, kStep / 2) == StepSchedule::kInOrder);
  CHECK(observe(automatic, 0) == StepSchedule::kInOrder);
  OverlapPolicy serial_device(RetrieveOverlap::kAuto, false, 36, 32);
  CHECK(observe(serial_device, 100 * kStep) == StepSchedule::kInOrder);
  OverlapPolicy never(RetrieveOverlap::kNever, true, 36, 32);
  CHECK(observe(never, 100 * kStep) == StepSchedule::kInOrder);
  OverlapPolicy ready(RetrieveOverlap::kReadyFirst, false, 36, 32);
  CHECK(observe(ready, 0) == StepSchedule::kReadyFirst);
  OverlapPolicy groups(RetrieveOverlap::kRowGroups, false, 36, 32);
  CHECK(observe(groups, 0) == StepSchedule::kRowGroups);
  CHECK(groups.schedule(1) == StepSchedule::kInOrder);
  CHECK(ready.schedule(512) == StepSchedule::kReadyFirst);
  CHECK(ready.schedule(513) == StepSchedule::kInOrder);
}

TEST_CASE("a policy may choose the schedules that it comes to, and no others") {
  const RetrieveOverlap mode = GENERATE(RetrieveOverlap::kAuto, RetrieveOverlap::kNever,
                                        RetrieveOverlap::kReadyFirst, RetrieveOverlap::kRowGroups);
  const bool device_overlaps = GENERATE(false, true);
  const int32_t places = GENERATE(1, 2, 8, 512, 513);
  INFO(static_cast<int>(mode) << ", " << device_overlaps << ", " << places);
  OverlapPolicy policy(mode, device_overlaps, 36, 32);
  bool chosen[kNumStepSchedules] = {};
  uint64_t bytes = 0;
  for (const uint64_t of_step : {0, 1 << 30, 0}) {
    policy.Observe(bytes += of_step);
    chosen[static_cast<int>(policy.schedule(places))] = true;
  }
  for (int32_t i = 0; i < kNumStepSchedules; ++i) {
    CHECK(policy.MayChoose(static_cast<StepSchedule>(i), places) == chosen[i]);
  }
}

}  // namespace
}  // namespace spin::testing
