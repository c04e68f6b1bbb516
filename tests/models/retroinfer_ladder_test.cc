// The rungs of the ladder that RetroInfer has of its own: it stores tokens in another order, so that exact mode equals
// dense within rounding; and it does so again while a sequence generates, so that outputs are long here. Equality is to
// the bit where nothing else is said.
#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kSteps = 40;

// The last three cluster an extent while they generate.
const std::vector<std::vector<int32_t>>& Prompts() {
  static const std::vector<std::vector<int32_t>> prompts = {
      RandomPrompt(1, 1), RandomPrompt(63, 2), RandomPrompt(560, 3), RandomPrompt(1070, 4),
      RandomPrompt(1590, 5)};
  return prompts;
}

TEST_CASE("Exact mode equals dense within rounding, and itself in both placements") {
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  const Generations dense = Run(options, Prompts(), kSteps);
  options.sparse = RetroInfer();
  options.sparse.exact = true;
  const Generations exact = Run(options, Prompts(), kSteps);
  CHECK(AllFinite(exact));
  CHECK(Difference(exact, dense, OrderRounding(dtype)) == "");
  CHECK(Difference(exact, dense) != "");  // it is another order
  options.placement = PlacementPolicy::kTiered;
  CHECK(Difference(Run(options, Prompts(), kSteps), exact) == "");
}

TEST_CASE("A sequence that has no cluster yet equals dense") {
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const std::vector<std::vector<int32_t>> prompts = {RandomPrompt(5, 1), RandomPrompt(300, 2),
                                                     RandomPrompt(575 - kSteps, 3)};
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  const Generations dense = Run(options, prompts, kSteps);
  options.sparse = RetroInfer();
  CHECK(Difference(Run(options, prompts, kSteps), dense, Rounding(dtype)) == "");
  CHECK(Difference(Run(Starved(options), prompts, kSteps), dense, Rounding(dtype)) == "");
}

TEST_CASE("All clusters attended to equal exact mode") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = RetroInfer(1000);
  const Generations all = Run(options, Prompts(), kSteps);
  options.sparse.exact = true;
  CHECK(Difference(Run(options, Prompts(), kSteps), all, Rounding(dtype)) == "");
}

TEST_CASE("An exact row beside others equals exact mode, and they what they are without it") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  if (GENERATE(false, true)) options = Starved(options);
  options.sparse = RetroInfer();
  options.poison_free_pages = true;
  const int32_t all = options.max_model_len / kClusterPageTokens;
  options.max_budget_pages = all;
  const std::vector<int32_t> none(Prompts().size(), 0);
  const Generations own = RunWithBudgets(options, Prompts(), none, kSteps);
  ModelRunnerOptions other = options;
  other.sparse.exact = true;
  const Generations exact = RunWithBudgets(other, Prompts(), none, kSteps);
  REQUIRE(Difference({exact[3], exact[4]}, {own[3], own[4]}) != "");

  const float rounding = Rounding(dtype);
  const Generations some = RunWithBudgets(options, Prompts(), {0, all, 0, all, 0}, kSteps);
  CHECK(Difference(some, {own[0], exact[1], own[2], exact[3], own[4]}, rounding) == "");
  const Generations others = RunWithBudgets(options, Prompts(), {all, 0, all, 0, all}, kSteps);
  CHECK(Difference(others, {exact[0], own[1], exact[2], own[3], exact[4]}, rounding) == "");
}

TEST_CASE("What is attended to, and what is estimated, makes a difference") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = RetroInfer(60, 232);
  const Generations both = Run(options, Prompts(), kSteps);
  options.sparse = RetroInfer(60, 0);
  CHECK(Difference(Run(options, Prompts(), kSteps), both) != "");
  options.sparse = RetroInfer(200, 232);
  CHECK(Difference(Run(options, Prompts(), kSteps), both) != "");
  options.sparse = RetroInfer();
  options.sparse.budget_tokens = 73 * 8 + 16 * 4;
  const Generations four = Run(options, Prompts(), kSteps);
  CHECK(Difference(four, both) != "");
  CHECK(Difference(Run(Starved(options), Prompts(), kSteps), four) == "");
}

TEST_CASE(
    "A long output is clustered again and again: Tiered equals Resident, nothing unwritten is "
    "read") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  constexpr int32_t kLong = 1150;  // past 576, 1,088 and 1,600 tokens
  const std::vector<std::vector<int32_t>> prompts = {RandomPrompt(500, 1), RandomPrompt(20, 2)};
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = RetroInfer();
  const Generations resident = Run(options, prompts, kLong);
  CHECK(AllFinite(resident));
  options = Starved(options);
  options.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  options.poison_free_pages = true;
  INFO("eviction " << static_cast<int>(options.eviction));
  ModelRunner tiered(options);
  CHECK(Difference(Run(tiered, prompts, kLong), resident) == "");
  const RetrieveCounters& counters = tiered.executor().retrieve_counters();
  CHECK(counters.misses > 0);
  CHECK(counters.evictions > 0);
}

TEST_CASE("Rows in groups equal steps in order, and ready first within rounding") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = Starved(SmallRunner(kLlama, dtype));
  options.sparse = RetroInfer();
  options.poison_free_pages = true;
  options.overlap = RetrieveOverlap::kNever;
  const Generations expected = Run(options, Prompts(), kSteps);
  options.overlap = RetrieveOverlap::kRowGroups;
  CHECK(Difference(Run(options, Prompts(), kSteps), expected) == "");
  options.overlap = RetrieveOverlap::kReadyFirst;
  const Generations out = Run(options, Prompts(), kSteps);
  CHECK(AllFinite(out));
  CHECK(Difference(out, expected, OrderRounding(dtype)) == "");
  CHECK(Difference(out, expected) != "");  // it was another order
}

TEST_CASE("Forks cluster what is theirs") {
  const PlacementPolicy placement = GENERATE(PlacementPolicy::kResident, PlacementPolicy::kTiered);
  // The second extent is full: not settled, just not settled, settled.
  const int32_t length = GENERATE(1030, 1087, 1088);
  constexpr int32_t kForkSteps = 70;
  INFO(length << " tokens");
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = RetroInfer();
  options.placement = placement;
  options.min_buffer_ratio = 0.5;
  const std::vector<int32_t> prompt = RandomPrompt(length, 1);
  const Generations single = Run(options, {prompt}, kForkSteps);
  ModelRunner runner(options);
  runner.sampling().num_logprobs = kMaxLogprobs;
  const std::vector<RowId> rows = runner.Start(prompt, length + kForkSteps, 3);
  Generations out;
  for (const RowId row : rows) out.push_back({runner.first_token(row)});
  for (int step = 1; step < kForkSteps; ++step) {
    // One behind the other, so that each clusters on its own.
    for (std::size_t i = 0; i < rows.size(); ++i) {
      out[i].push_back(runner.Step({rows[i]})[0]);
    }
  }
  CHECK(Difference(out, {single[0], single[0], single[0]}, Rounding(DType::kF32)) == "");
}

}  // namespace
}  // namespace spin::testing
