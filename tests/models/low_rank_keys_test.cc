// ShadowKV with keys that are rebuilt: a row's keys are exact as long as they are where they were written; what is
// fetched has keys of the factor's rank. So Resident rows have the bits of retrieved keys, and Tiered ones equal them
// up to what the factor leaves out: rounding alone where its rank is the keys' dimension. A step that attends to the
// whole context fetches exact keys.
#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "common/math.h"
#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kSteps = 40;

// What factors of full rank may do to a log-probability: in bfloat16 basis, factor and key are rounded one after the
// other, and another page is selected now and then.
float FactorRounding(DType dtype) {
  return dtype == DType::kF32 ? 1e-3f : 0.6f;
}

// The first is too short for a factor.
const std::vector<std::vector<int32_t>>& Prompts() {
  static const std::vector<std::vector<int32_t>> prompts = {
      RandomPrompt(100, 1), RandomPrompt(500, 2), RandomPrompt(1024, 3), RandomPrompt(1537, 4)};
  return prompts;
}

TEST_CASE("Resident rows have exact keys: the bits of ShadowKV that retrieves them") {
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  options.placement = PlacementPolicy::kResident;
  options.sparse = ShadowKv(128);
  const Generations expected = Run(options, Prompts(), kSteps);
  options.sparse = LowRankKeys(128);
  CHECK(Difference(Run(options, Prompts(), kSteps), expected) == "");
}

TEST_CASE("Factors of full rank: Tiered equals Resident within rounding, under every schedule") {
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const auto overlap =
      GENERATE(RetrieveOverlap::kNever, RetrieveOverlap::kReadyFirst, RetrieveOverlap::kRowGroups);
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  options.placement = PlacementPolicy::kResident;
  options.sparse = LowRankKeys(128, kFullRank);
  const Generations expected = Run(options, Prompts(), kSteps);
  options = Starved(options);
  options.overlap = overlap;
  if (overlap == RetrieveOverlap::kNever) options.eviction = Eviction::kNone;
  ModelRunner tiered(options);
  CHECK(Difference(Run(tiered, Prompts(), kSteps), expected, FactorRounding(dtype)) == "");
  CHECK(tiered.executor().retrieve_counters().misses > 100);
}

TEST_CASE("Values alone cross from the host, but for the window, outliers and short prompts") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = Starved(SmallRunner(kLlama, dtype));
  options.eviction = Eviction::kNone;  // every step fetches all it selects
  options.sparse = ShadowKv(128);
  ModelRunner whole(options);
  const Generations exact = Run(whole, {Prompts()[3]}, kSteps);
  options.sparse = LowRankKeys(128, 16);
  ModelRunner values(options);
  const Generations rebuilt = Run(values, {Prompts()[3]}, kSteps);
  CHECK(AllFinite(rebuilt));
  CHECK(Difference(rebuilt, exact) != "");  // 16 directions do not span the keys
  const RetrieveCounters all = whole.executor().retrieve_counters(),
                         some = values.executor().retrieve_counters();
  const auto page_bytes = static_cast<uint64_t>(values.geometry().page_bytes());
  CHECK(all.rebuilt == 0);
  CHECK(some.misses == all.misses);
  // Of 16 pages 2 of the window and 4 outliers come whole, and now and then the tail.
  const double whole_share = 2 * double(some.Bytes(page_bytes)) / double(all.Bytes(page_bytes)) - 1;
  CHECK(whole_share > 5.0 / 16);
  CHECK(whole_share < 7.5 / 16);
  ModelRunner short_prompt(options);
  Run(short_prompt, {Prompts()[0]}, kSteps);
  const RetrieveCounters counters = short_prompt.executor().retrieve_counters();
  CHECK(counters.rebuilt == 0);
}

TEST_CASE("A suspended row goes on with rebuilt keys") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = LowRankKeys(128, kFullRank);
  options.placement = PlacementPolicy::kTiered;
  const Generations expected = Run(options, {Prompts()[2]}, kSteps);
  ModelRunner runner(options);
  runner.sampling().num_logprobs = kMaxLogprobs;
  const std::vector<RowId> row = runner.Start(Prompts()[2], 1100);
  Generations out = {{runner.first_token(row[0])}};
  for (int step = 1; step < kSteps; ++step) {
    if (step % 7 == 0) {
      runner.memory().Suspend(row[0]);
      const auto other = runner.Start(RandomPrompt(600, 9), 640);  // takes slots and writes a basis
      runner.Step(other);
      runner.Release(other[0]);
      REQUIRE(runner.memory().Resume(row[0]));
    }
    out[0].push_back(runner.Step(row)[0]);
  }
  CHECK(Difference(out, expected, FactorRounding(options.dtype)) == "");
}

TEST_CASE(
    "Forks have a basis of their own: they generate what a row does that begins with empty slots") {
  const int32_t length = GENERATE(300, 512, 1100);  // no shared extent, nothing else, both
  ModelRunnerOptions options = Starved(SmallRunner(kLlama));
  options.sparse = LowRankKeys(128);
  const std::vector<int32_t> prompt = RandomPrompt(length, 1);
  const auto generate = [&](ModelRunner& runner, std::vector<RowId> rows) {
    Generations all(rows.size(), {runner.first_token(rows[0])});
    for (int step = 1; step < kSteps; ++step) {
      const auto sampled = runner.Step(rows);
      for (std::size_t i = 0; i < rows.size(); ++i) all[i].push_back(sampled[i]);
    }
    return all;
  };
  ModelRunner single(options), forked(options);
  for (ModelRunner* runner : {&single, &forked}) runner->sampling().num_logprobs = kMaxLogprobs;
  const std::vector<RowId> row = single.Start(prompt, length + kSteps);
  single.memory().Suspend(row[0]);
  REQUIRE(single.memory().Resume(row[0]));
  const Generations expected = generate(single, row);
  const std::vector<RowId> rows = forked.Start(prompt, length + kSteps, 3);
  forked.Release(rows[0]);                                     // the one that was prefilled
  const auto other = forked.Start(RandomPrompt(600, 7), 640);  // in its place
  CHECK(Difference(generate(forked, {rows[1], rows[2]}), {expected[0], expected[0]},
                   Rounding(options.dtype)) == "");
  CHECK(single.executor().retrieve_counters().misses > 0);
}

TEST_CASE(
    "A budget of its own that covers a row is dense attention, also where slots begin empty") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const std::vector<int32_t>& prompt = Prompts()[2];
  const auto tokens = static_cast<int32_t>(prompt.size()) + kSteps;
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  const Generations dense = Run(options, {prompt}, kSteps);
  options = Starved(options);
  options.sparse = LowRankKeys(128, 16);
  options.max_budget_pages = options.max_model_len / kLandmarkTokens;
  options.poison_free_pages = true;
  const auto generate = [&](int32_t budget_pages) {
    ModelRunner runner(options);
    runner.sampling().num_logprobs = kMaxLogprobs;
    const std::vector<RowId> rows = runner.Start(prompt, tokens, 2, budget_pages);
    Generations out(2, {runner.first_token(rows[0])});
    for (int step = 1; step < kSteps; ++step) {
      if (step == 20) {
        runner.memory().Suspend(rows[0]);
        REQUIRE(runner.memory().Resume(rows[0]));
      }
      const auto sampled = runner.Step(rows);
      for (std::size_t i = 0; i < rows.size(); ++i) out[i].push_back(sampled[i]);
    }
    const RetrieveCounters counters = runner.executor().retrieve_counters();
    CHECK(counters.misses > 1000);
    CHECK((counters.rebuilt == 0) == (budget_pages > 0));
    return out;
  };
  const Generations all = generate(CeilDiv(tokens, kLandmarkTokens));
  CHECK(Difference(all, {dense[0], dense[0]}, Rounding(dtype)) == "");
  CHECK(Difference(generate(0), all) != "");
}

TEST_CASE("A demoted row goes on with the basis that it had while Resident") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = LowRankKeys(128, kFullRank);
  options.min_buffer_ratio = 0.5;
  const std::vector<int32_t> prompt = RandomPrompt(1003, 1);
  const Generations expected = Run(options, {prompt}, kSteps);
  SetPools(options, 19, 32);
  ModelRunner runner(options);
  runner.sampling().num_logprobs = kMaxLogprobs;
  const std::vector<RowId> row = runner.Start(prompt, 1003 + kSteps);
  Generations out = {{runner.first_token(row[0])}};
  const auto step = [&] { out[0].push_back(runner.Step(row)[0]); };
  for (int i = 0; i < 5; ++i) step();
  runner.Start(RandomPrompt(1000, 2), 1040);
  REQUIRE_FALSE(runner.memory().Admit(900, 970, 1).has_value());
  while (runner.memory().room_is_coming()) {
    step();
    runner.executor().AwaitSpill();
  }
  REQUIRE(runner.memory().placement(row[0]) == Placement::kTiered);
  while (out[0].size() < static_cast<size_t>(kSteps)) step();
  CHECK(runner.executor().retrieve_counters().misses > 0);
  CHECK(Difference(out, expected, FactorRounding(options.dtype)) == "");
}

}  // namespace
}  // namespace spin::testing
