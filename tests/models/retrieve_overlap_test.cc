// The two schedules of a decode layer: in order, and with missing pages fetched beside the attention to what is ready.
// The second sums a list in another order, so it equals the first within rounding; to the bit where nothing is missing.
#include <catch2/catch.hpp>

#include <vector>

#include "models/overlap_policy.h"
#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kSteps = 40;

// What another order of summation may do to a log-probability.
float OrderRounding(DType dtype) {
  return dtype == DType::kF32 ? 1e-3f : 0.1f;
}

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

TEST_CASE("overlapped steps equal steps in order within rounding, and fetch the same") {
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
  const Generations out = RunWith(options, RetrieveOverlap::kAlways, &overlapped);
  CHECK(AllFinite(out));
  CHECK(Difference(out, expected, OrderRounding(dtype)) == "");
  CHECK(Difference(out, expected) != "");  // it was another order
  CHECK(overlapped.misses > 100);
  // Rounding may choose other pages now and then.
  CHECK(std::abs(double(overlapped.misses) / double(serial.misses) - 1) < 0.1);
  CHECK(overlapped.bytes > 0);
}

TEST_CASE("where nothing is missing both schedules have the same bits") {
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
  const Generations out = RunWith(options, RetrieveOverlap::kAlways, &counters);
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
  CHECK(Difference(generate(RetrieveOverlap::kAlways), expected, OrderRounding(DType::kF32)) == "");
}

TEST_CASE("the policy follows the bytes of the last step, where the device overlaps") {
  constexpr uint64_t kStep = 36 * (256 << 10);
  uint64_t bytes = 0;
  const auto observe = [&](OverlapPolicy& policy, uint64_t of_step) {
    policy.Observe(bytes += of_step);
    return policy.overlaps();
  };
  OverlapPolicy automatic(RetrieveOverlap::kAuto, true, 36);
  CHECK_FALSE(automatic.overlaps());
  CHECK_FALSE(observe(automatic, kStep - 1));
  CHECK(observe(automatic, kStep));
  CHECK(observe(automatic, kStep / 2));
  CHECK_FALSE(observe(automatic, kStep / 2 - 1));
  CHECK_FALSE(observe(automatic, kStep / 2));
  CHECK_FALSE(observe(automatic, 0));
  OverlapPolicy serial_device(RetrieveOverlap::kAuto, false, 36);
  CHECK_FALSE(observe(serial_device, 100 * kStep));
  OverlapPolicy never(RetrieveOverlap::kNever, true, 36),
      always(RetrieveOverlap::kAlways, false, 36);
  CHECK_FALSE(observe(never, 100 * kStep));
  CHECK(observe(always, 0));
}

}  // namespace
}  // namespace spin::testing
