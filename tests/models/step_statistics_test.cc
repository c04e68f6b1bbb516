// What the executor tells of its steps: the time of each stage, and what Lookup counted of each row.
#include <catch2/catch.hpp>

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "models/pipeline/stage_clock.h"
#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

const std::vector<std::vector<int32_t>>& Prompts() {
  static const std::vector<std::vector<int32_t>> prompts = {
      RandomPrompt(300, 1), RandomPrompt(1024, 2), RandomPrompt(1537, 3)};
  return prompts;
}

TEST_CASE("laps add up to the run, and a run is read once") {
  const Backend backend = CreateBackend({.device = TestDevice(), .threads = 2}).value();
  Device& device = *backend.device;
  const auto stream = device.CreateStream("test");
  constexpr int64_t kBytes = 128 << 20;
  const Buffer memory = device.Allocate(MemoryKind::kDevice, kBytes).value();
  device.Fill(memory.data(), 1, kBytes, *stream);  // pages are there
  const auto begin = device.CreateEvent(), end = device.CreateEvent();
  StageClock clock(&device, 3);
  CHECK(!clock.busy());
  for (uint64_t run = 1; run <= 2; ++run) {
    const StageTimes before = clock.times();
    device.Record(*begin, *stream);
    clock.Start(*stream);
    clock.Lap(Stage::kIndex, *stream);
    device.Fill(memory.data(), 2, kBytes, *stream);
    clock.Lap(Stage::kGather, *stream);
    clock.Lap(Stage::kIndex, *stream);
    device.Record(*end, *stream);
    CHECK(clock.busy());
    device.Synchronize(*stream);
    CHECK(clock.times().runs == run - 1);
    clock.Collect();
    CHECK(!clock.busy());
    const StageTimes times = clock.times();
    CHECK(times.runs == run);
    int64_t sum = 0;
    for (int32_t i = 0; i < kNumStages; ++i) {
      sum += times.ns[static_cast<size_t>(i)] - before.ns[static_cast<size_t>(i)];
    }
    CHECK(sum > 0);
    CHECK(sum <= device.ElapsedNs(*begin, *end));
    CHECK(times.of(Stage::kGather) > times.of(Stage::kIndex));
    CHECK(times.of(Stage::kAttention) == 0);
  }
  clock.Start(*stream);
  clock.Discard();
  CHECK(!clock.busy());
  CHECK(clock.times().runs == 2);
}

TEST_CASE("of so many steps one is timed, and computes what the others do") {
  const std::string algorithm = GENERATE(as<std::string>{}, "dense", "quest", "shadowkv");
  INFO(algorithm);
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = algorithm == "dense"   ? SparseOptions{}
                   : algorithm == "quest" ? Quest(128)
                                          : ShadowKv(128);
  options.placement = PlacementPolicy::kTiered;
  options.min_buffer_ratio = 0;
  constexpr int32_t kSteps = 22;  // 21 decode steps: the first token is the prefill's
  ModelRunner untimed(options);
  const Generations expected = untimed.GenerateSampled(Prompts(), kSteps);
  CHECK(untimed.executor().decode_times().runs == 0);
  CHECK(untimed.executor().prefill_times().runs == 0);

  options.stage_sample_period = 4;
  ModelRunner timed(options);
  CHECK(Difference(timed.GenerateSampled(Prompts(), kSteps, true), expected) == "");
  const StageTimes steps = timed.executor().decode_times();
  CHECK(steps.runs == 5);
  for (const Stage stage :
       {Stage::kLookup, Stage::kAppend, Stage::kGather, Stage::kAttention, Stage::kRest}) {
    CHECK(steps.of(stage) > 0);
  }
  if (algorithm != "dense") CHECK(steps.of(Stage::kSelect) > steps.of(Stage::kIndex));
  const StageTimes batches = timed.executor().prefill_times();
  CHECK(batches.runs == Prompts().size());
  CHECK(batches.of(Stage::kAppend) > 0);
  CHECK(batches.of(Stage::kSelect) == 0);
}

TEST_CASE("a timed step is in order where others overlap") {
  ModelRunnerOptions options = SmallRunner(kQwen3);
  options.sparse = Quest(128);
  options.placement = PlacementPolicy::kTiered;
  options.stage_sample_period = 1;
  ModelRunner in_order(options);
  const Generations expected = in_order.GenerateSampled(Prompts(), 12);
  options.overlap = GENERATE(RetrieveOverlap::kReadyFirst, RetrieveOverlap::kRowGroups);
  ModelRunner overlapped(options);
  CHECK(Difference(overlapped.GenerateSampled(Prompts(), 12), expected) == "");
  CHECK(overlapped.executor().decode_times().runs == 11);
}

TEST_CASE("a row is counted by itself, and all rows add up") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Quest(128);
  options.placement = PlacementPolicy::kTiered;
  options.min_buffer_ratio = 0.5;
  constexpr int32_t kSteps = 12;
  std::vector<RetrieveCounters> alone;
  for (const auto& prompt : Prompts()) {
    ModelRunner runner(options);
    const RowId row = runner.Start(prompt, static_cast<int64_t>(prompt.size()) + kSteps)[0];
    for (int32_t i = 0; i < kSteps; ++i) runner.Step({row});
    alone.push_back(runner.counters(row));
    CHECK(alone.back() == runner.executor().retrieve_counters());
    CHECK(alone.back().hits > 0);
    CHECK(alone.back().misses > 0);
  }
  ModelRunner runner(options);
  std::vector<RowId> rows;
  for (const auto& prompt : Prompts()) {
    rows.push_back(runner.Start(prompt, static_cast<int64_t>(prompt.size()) + kSteps)[0]);
  }
  for (int32_t i = 0; i < kSteps; ++i) runner.Step({rows[2], rows[0], rows[1]});
  RetrieveCounters total;
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(runner.counters(rows[i]) == alone[i]);
    total += alone[i];
  }
  CHECK(runner.executor().retrieve_counters() == total);

  // The next holder of a row counts on from where it starts.
  const RetrieveCounters before = runner.counters(rows[0]);
  runner.Release(rows[0]);
  const RowId again =
      runner.Start(Prompts()[0], static_cast<int64_t>(Prompts()[0].size()) + kSteps)[0];
  REQUIRE(again == rows[0]);
  CHECK(runner.counters(again) == before);
  for (int32_t i = 0; i < kSteps; ++i) runner.Step({again});
  CHECK(runner.counters(again) - before == alone[0]);
}

}  // namespace
}  // namespace spin::testing
