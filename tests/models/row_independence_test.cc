// What a sequence generates depends on itself alone: not on the batch, the tiles, the threads, the
// rows that are demoted, suspended, forked or released around it. Equality is to the bit.
#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kSteps = 32;

std::vector<SampledToken> Alone(const ModelRunnerOptions& options,
                                const std::vector<int32_t>& prompt, int32_t steps) {
  return Run(options, {prompt}, steps)[0];
}

// Steps `rows` and appends what each samples.
void StepInto(ModelRunner& runner, const std::vector<RowId>& rows, Generations& out) {
  const std::vector<SampledToken> sampled = runner.Step(rows);
  for (std::size_t i = 0; i < rows.size(); ++i) out[i].push_back(sampled[i]);
}

TEST_CASE("A sequence is alone in its batch") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const std::string algorithm =
      GENERATE("dense", "quest", "shadowkv", "low-rank keys", "seer", "retroinfer");
  const PlacementPolicy placement = GENERATE(PlacementPolicy::kResident, PlacementPolicy::kTiered);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = Sparse(algorithm, 128);
  options.placement = placement;
  options.min_buffer_ratio = 0.5;
  const std::vector<std::vector<int32_t>> prompts = {RandomPrompt(700, 1), RandomPrompt(1, 2),
                                                     RandomPrompt(130, 3), RandomPrompt(513, 4),
                                                     RandomPrompt(64, 5)};
  Generations alone;
  for (const auto& prompt : prompts) alone.push_back(Alone(options, prompt, kSteps));
  ModelRunner runner(options);
  CHECK(Difference(Run(runner, prompts, kSteps), alone) == "");
  CHECK(Difference(Run(runner, prompts, kSteps, true), alone) == "");  // on pages used before
}

TEST_CASE("Tiles, threads and streams change nothing") {
  const std::string algorithm = GENERATE("quest", "shadowkv", "seer", "retroinfer");
  const std::string folder = GENERATE(kLlama, kQwen3);
  const std::vector<std::vector<int32_t>> prompts = {RandomPrompt(611, 1), RandomPrompt(90, 2)};
  ModelRunnerOptions options = SmallRunner(folder);
  options.sparse = Sparse(algorithm, 128, folder);
  const Generations expected = Run(options, prompts, kSteps);
  for (const int32_t tile : {16, 64, 512}) {
    INFO("tile " << tile);
    options.tile_tokens = tile;
    CHECK(Difference(Run(options, prompts, kSteps), expected) == "");
  }
  options.threads = 1;
  CHECK(Difference(Run(options, prompts, kSteps), expected) == "");
  options.inline_streams = true;
  CHECK(Difference(Run(options, prompts, kSteps), expected) == "");
}

TEST_CASE("A row that is demoted while it generates goes on unharmed") {
  const std::string algorithm = GENERATE("quest", "shadowkv", "seer");
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = Sparse(algorithm, 128);
  options.min_buffer_ratio = 0.5;
  // The first, of 1023 tokens when its demotion begins, fills an extent while its copies pass.
  const std::vector<std::vector<int32_t>> prompts = {RandomPrompt(1003, 1), RandomPrompt(1000, 2),
                                                     RandomPrompt(900, 3)};
  Generations alone;
  for (const auto& prompt : prompts) alone.push_back(Alone(options, prompt, 70));

  // Of 3 layers x 3 extents each the first two take 18; even Tiered the third needs 3.
  SetPools(options, 19, 32);
  options.max_spills = 1;  // one extent a step
  ModelRunner runner(options);
  runner.sampling().num_logprobs = kMaxLogprobs;
  KvCacheManager& memory = runner.memory();
  std::vector<RowId> rows;
  Generations out;
  const auto start = [&](const std::vector<int32_t>& prompt) {
    rows.push_back(runner.Start(prompt, static_cast<int64_t>(prompt.size()) + 70)[0]);
    out.push_back({runner.first_token(rows.back())});
  };
  for (int i = 0; i < 2; ++i) {
    start(prompts[i]);
    CHECK(memory.placement(rows.back()) == Placement::kResident);
    for (int step = 0; step < 10; ++step) StepInto(runner, rows, out);
  }
  REQUIRE_FALSE(memory.Admit(900, 970, 1).has_value());
  int beside = 0;  // steps beside the copies
  for (; memory.room_is_coming(); ++beside) {
    CHECK(memory.placement(rows[0]) == Placement::kResident);
    StepInto(runner, rows, out);
    runner.executor().AwaitSpill();
  }
  CHECK(beside == 4);  // 3 layers x 1 full extent, and the one that finishes
  CHECK(memory.length(rows[0]) == 1027);
  REQUIRE(memory.placement(rows[0]) == Placement::kTiered);
  REQUIRE(memory.usage().demotions == 1);
  start(prompts[2]);
  for (int step = 0; step < 39; ++step) StepInto(runner, rows, out);
  CHECK(runner.executor().retrieve_counters().misses > 0);
  for (std::size_t i = 0; i < out.size(); ++i) {
    INFO("sequence " << i);
    std::vector<SampledToken> expected(alone[i].begin(), alone[i].begin() + out[i].size());
    CHECK(Difference({out[i]}, {expected}) == "");
  }
}

TEST_CASE("A row that was suspended goes on from the host's copy") {
  const std::string algorithm = GENERATE("dense", "quest", "shadowkv", "seer", "retroinfer");
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Sparse(algorithm, 128);
  options.placement = PlacementPolicy::kTiered;
  const std::vector<int32_t> prompt = RandomPrompt(777, 1);
  const Generations expected = {Alone(options, prompt, kSteps)};
  ModelRunner runner(options);
  runner.sampling().num_logprobs = kMaxLogprobs;
  const std::vector<RowId> rows = runner.Start(prompt, 900);
  Generations out = {{runner.first_token(rows[0])}};
  for (int step = 1; step < kSteps; ++step) {
    if (step % 7 == 0) {
      runner.memory().Suspend(rows[0]);
      const auto other = runner.Start(RandomPrompt(600, 9), 640);  // takes the slots meanwhile
      runner.Step(other);
      runner.Release(other[0]);
      REQUIRE(runner.memory().Resume(rows[0]));
    }
    StepInto(runner, rows, out);
  }
  CHECK(Difference(out, expected) == "");
}

TEST_CASE("Forks of one prompt generate what a single sequence does") {
  const std::string algorithm = GENERATE("dense", "quest", "shadowkv", "seer", "retroinfer");
  const PlacementPolicy placement = GENERATE(PlacementPolicy::kResident, PlacementPolicy::kTiered);
  const int32_t length = GENERATE(300, 512, 1100);  // no shared extent, nothing else, both
  INFO(length << " tokens"
              << ", " << algorithm);
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Sparse(algorithm, 128);
  options.placement = placement;
  options.min_buffer_ratio = 0.5;
  const std::vector<int32_t> prompt = RandomPrompt(length, 1);
  const std::vector<SampledToken> single = Alone(options, prompt, kSteps);
  ModelRunner runner(options);
  runner.sampling().num_logprobs = kMaxLogprobs;
  std::vector<RowId> rows = runner.Start(prompt, length + kSteps, 3);
  REQUIRE(rows.size() == 3);
  Generations out;
  for (const RowId row : rows) out.push_back({runner.first_token(row)});
  for (int step = 1; step < kSteps; ++step) {
    StepInto(runner, rows, out);
    if (step != 9) continue;
    runner.Release(rows[0]);  // the one that was prefilled
    rows.erase(rows.begin());
    out.erase(out.begin());
    const auto other = runner.Start(RandomPrompt(600, 7), 640);  // on what it gave back
    runner.Step(other);
    runner.Release(other[0]);
  }
  CHECK(Difference(out, {single, single}) == "");
}

TEST_CASE("What a row draws is a function of its seed") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Quest(128);
  ModelRunner runner(options);
  runner.sampling().temperature = 1;
  runner.sampling().seed = 5;
  const std::vector<int32_t> prompt = RandomPrompt(600, 1);
  const Generations once = Run(runner, {prompt}, kSteps);
  CHECK(Difference(Run(runner, {prompt}, kSteps), once) == "");
  runner.sampling().seed = 6;
  CHECK(Difference(Run(runner, {prompt}, kSteps), once) != "");
}

}  // namespace
}  // namespace spin::testing
