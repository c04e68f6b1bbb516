// The correctness ladder of sparse attention over two tiers, through the executor's own prefill and
// decode. Every rung is equality to the bit, in tokens and log-probabilities: the CPU sums in token
// order whatever the page size or the placement. On a GPU (SPIN_TEST_DEVICE=cuda) the rungs that change
// the page size or the length of the lists are equality within rounding.
#include <catch2/catch.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kSteps = 40;

// Lengths around the edges of pages and extents; some open a page or an extent while generating.
const std::vector<std::vector<int32_t>>& Prompts() {
  static const std::vector<std::vector<int32_t>> prompts = {
      RandomPrompt(1, 1), RandomPrompt(500, 2), RandomPrompt(1024, 3), RandomPrompt(1537, 4)};
  return prompts;
}

TEST_CASE("Exact mode equals dense to the bit, in both placements") {
  const std::string algorithm = GENERATE("quest", "shadowkv", "low-rank keys", "seer");
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  const Generations dense = Run(options, Prompts(), kSteps);
  REQUIRE(AllFinite(dense));
  options.sparse = Sparse(algorithm, 64, folder);
  options.sparse.exact = true;
  CHECK(Difference(Run(options, Prompts(), kSteps), dense, Rounding(dtype)) == "");
  options.placement = PlacementPolicy::kTiered;
  CHECK(Difference(Run(options, Prompts(), kSteps), dense, Rounding(dtype)) == "");
}

TEST_CASE("A sequence no longer than the budget equals dense") {
  const std::string algorithm =
      GENERATE("quest", "large quest", "shadowkv", "low-rank keys", "seer");
  const std::string folder = GENERATE(kLlama, kQwen3);
  const std::vector<std::vector<int32_t>> prompts = {RandomPrompt(5, 1), RandomPrompt(300, 2),
                                                     RandomPrompt(640 - kSteps, 3)};
  ModelRunnerOptions options = SmallRunner(folder);
  const Generations dense = Run(options, prompts, kSteps);
  options.sparse = Sparse(algorithm, 640, folder);
  CHECK(Difference(Run(options, prompts, kSteps), dense, Rounding(options.dtype)) == "");
  CHECK(Difference(Run(Starved(options), prompts, kSteps), dense, Rounding(options.dtype)) == "");
  if (algorithm != "seer") return;
  options.sparse.seer_threshold = 0.5;  // what fits is attended to all the same
  CHECK(Difference(Run(options, prompts, kSteps), dense, Rounding(options.dtype)) == "");
}

TEST_CASE(
    "Below the context a selection is not dense: the ladder's rungs compare different things") {
  const std::string algorithm =
      GENERATE("quest", "shadowkv", "low-rank keys", "seer", "retroinfer");
  ModelRunnerOptions options = SmallRunner(kLlama);
  const Generations dense = Run(options, Prompts(), kSteps);
  options.sparse = Sparse(algorithm, 64);
  CHECK(Difference(Run(options, Prompts(), kSteps), dense) != "");
}

TEST_CASE("A row with a budget of its own equals a server with that budget, beside others") {
  const std::string algorithm = GENERATE("quest", "shadowkv", "low-rank keys", "seer");
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Sparse(algorithm, 128);
  options.placement = PlacementPolicy::kResident;
  if (GENERATE(false, true)) options = Starved(options);
  const int32_t page_tokens = ModelRunner(options).geometry().page_tokens;
  const int32_t all = options.max_model_len / page_tokens;
  options.max_budget_pages = all;
  const std::vector<int32_t> none(4, 0);
  const Generations own = RunWithBudgets(options, Prompts(), none, kSteps);

  ModelRunnerOptions other = options;
  other.sparse = Sparse(algorithm, 256);
  const Generations larger = RunWithBudgets(other, Prompts(), none, kSteps);
  other.sparse = Sparse(algorithm, 64);
  const Generations smaller = RunWithBudgets(other, Prompts(), none, kSteps);
  other.sparse.exact = true;
  const Generations exact = RunWithBudgets(other, Prompts(), none, kSteps);
  REQUIRE(Difference({larger[1], smaller[2], exact[3]}, {own[1], own[2], own[3]}) != "");

  const int32_t of_256 = 256 / page_tokens, of_64 = 64 / page_tokens;
  const Generations mixed = RunWithBudgets(options, Prompts(), {0, of_256, of_64, all}, kSteps);
  const float rounding = Rounding(options.dtype);
  CHECK(Difference(mixed, {own[0], larger[1], smaller[2], exact[3]}, rounding) == "");
  const Generations mirrored = RunWithBudgets(options, Prompts(), {all, of_64, 0, of_256}, kSteps);
  CHECK(Difference(mirrored, {exact[0], smaller[1], own[2], larger[3]}, rounding) == "");
}

TEST_CASE("Forced Tiered equals Resident while pages are evicted and fetched at every step") {
  const std::string algorithm = GENERATE("quest", "large quest", "shadowkv", "seer", "retroinfer");
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  options.sparse = Sparse(algorithm, algorithm == "large quest" ? 256 : 128, folder);
  options.placement = PlacementPolicy::kResident;
  ModelRunner resident(options);
  const Generations expected = Run(resident, Prompts(), kSteps);
  CHECK(resident.executor().retrieve_counters().misses == 0);

  options = Starved(options);
  options.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  INFO("eviction " << static_cast<int>(options.eviction));
  ModelRunner tiered(options);
  CHECK(Difference(Run(tiered, Prompts(), kSteps), expected) == "");
  const RetrieveCounters counters = tiered.executor().retrieve_counters();
  CHECK(counters.misses > 0);
  CHECK(counters.evictions > 0);
}

TEST_CASE("Rows whose budgets grow and shrink on the way equal rows whose budgets stay") {
  // Not with rebuilt keys: what is evicted, and so rebuilt, depends on the slots.
  const std::string algorithm = GENERATE("quest", "shadowkv", "seer");
  ModelRunnerOptions options = Starved(SmallRunner(kLlama));
  options.sparse = Sparse(algorithm, 128);
  ModelRunner fixed(options);
  const Generations expected = Run(fixed, Prompts(), kSteps, true);

  // Three layers. Each row has one extent of slots a layer, at most all its pages: 0, 1, 2, 3 more. And 3 are left.
  options.max_buffer_ratio = 30;
  SetPools(options, 3 * (4 + 6 + 1), 3 * 20);
  ModelRunner runner(options);
  runner.sampling().num_logprobs = kMaxLogprobs;
  KvCacheManager& memory = runner.memory();
  std::vector<RowId> rows, others;
  Generations tokens;
  for (const auto& prompt : Prompts()) {
    rows.push_back(runner.Start(prompt, static_cast<int64_t>(prompt.size()) + kSteps)[0]);
    tokens.push_back({runner.first_token(rows.back())});
  }
  const auto take = [&](int32_t count) {  // of one extent a layer
    const auto taken = memory.Admit(16, 16, count);
    REQUIRE(taken.has_value());
    others.insert(others.end(), taken->begin(), taken->end());
    return memory.usage().buffer_extents;
  };
  const auto lend = [&] {
    for (const RowId row : std::exchange(others, {})) memory.Release(row);
    memory.HandOutSlots(false);
    return memory.usage().buffer_extents;
  };
  for (int32_t step = 1; step < kSteps; ++step) {
    if (step == 8) CHECK(lend() == 18);
    if (step == 16) CHECK(take(4) == 9);
    if (step == 20) CHECK(take(3) == 0);
    if (step == 26) CHECK(lend() > 9);
    if (step == 33) CHECK(take(5) < 9);
    const auto sampled = runner.Step(rows);
    for (size_t i = 0; i < rows.size(); ++i) tokens[i].push_back(sampled[i]);
  }
  CHECK(Difference(tokens, expected) == "");
  CHECK(runner.executor().retrieve_counters().misses > 0);
  CHECK(runner.executor().retrieve_counters().misses < fixed.executor().retrieve_counters().misses);
}

// Pages that one prompt's decode steps select in all, a fresh tail left out.
uint64_t SelectedPages(int64_t prompt_tokens, int32_t steps, int64_t page_tokens,
                       int64_t budget_pages) {
  uint64_t pages = 0;
  for (int32_t step = 1; step < steps; ++step) {
    const int64_t position = prompt_tokens + step - 1;
    pages += static_cast<uint64_t>(std::min(position / page_tokens + 1, budget_pages));
    if (position % page_tokens == 0) --pages;
  }
  return pages;
}

TEST_CASE("Hits and misses together are the selected pages, under every eviction rule") {
  const std::string algorithm = GENERATE("quest", "shadowkv", "low-rank keys", "seer");
  ModelRunnerOptions options = Starved(SmallRunner(kLlama));
  options.sparse = Sparse(algorithm, 128);
  options.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  ModelRunner runner(options);
  Run(runner, Prompts(), kSteps);
  const KvGeometry& geometry = runner.geometry();
  uint64_t selected = 0;
  for (const auto& prompt : Prompts()) {
    selected += SelectedPages(static_cast<int64_t>(prompt.size()), kSteps, geometry.page_tokens,
                              128 / geometry.page_tokens);
  }
  selected *= static_cast<uint64_t>(geometry.num_layers) * geometry.num_kv_heads;
  const RetrieveCounters counters = runner.executor().retrieve_counters();
  CHECK(counters.hits + counters.misses == selected);
}

TEST_CASE("A threshold leaves pages of the budget out, alike in both placements, and counts them") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = Seer(128, kLlama);
  options.poison_free_pages = true;
  const Generations budget = Run(options, Prompts(), kSteps);
  options.sparse.seer_threshold = 0.04;
  ModelRunner resident(options);
  const Generations expected = Run(resident, Prompts(), kSteps);
  CHECK(AllFinite(expected));
  CHECK(Difference(expected, budget) != "");
  const uint64_t spared = resident.executor().retrieve_counters().spared;

  options = Starved(options);
  options.eviction = GENERATE(Eviction::kBucketed, Eviction::kNone);
  ModelRunner tiered(options);
  CHECK(Difference(Run(tiered, Prompts(), kSteps), expected) == "");
  const RetrieveCounters counters = tiered.executor().retrieve_counters();
  CHECK(counters.misses > 0);
  CHECK(counters.spared == spared);
  uint64_t selected = 0;
  for (const auto& prompt : Prompts()) {
    selected += SelectedPages(static_cast<int64_t>(prompt.size()), kSteps, 16, 128 / 16);
  }
  selected *= static_cast<uint64_t>(tiered.geometry().num_layers) * tiered.geometry().num_kv_heads;
  CHECK(counters.hits + counters.misses + spared == selected);
  CHECK(spared > selected / 20);
  CHECK(spared < selected / 2);
}

TEST_CASE("Dense equals itself in both placements") {
  const std::string folder = GENERATE(kLlama, kQwen3);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(folder, dtype);
  options.placement = PlacementPolicy::kResident;
  const Generations resident = Run(options, Prompts(), kSteps);
  options.placement = PlacementPolicy::kTiered;
  ModelRunner tiered(options);
  CHECK(Difference(Run(tiered, Prompts(), kSteps), resident) == "");
  CHECK(tiered.executor().retrieve_counters().hits > 0);
}

TEST_CASE("Pages that nobody wrote never reach an output, even full of NaN") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const std::string algorithm =
      GENERATE("dense", "quest", "shadowkv", "low-rank keys", "seer", "retroinfer");
  const bool tiered = GENERATE(false, true);
  INFO(algorithm << (tiered ? ", tiered" : ", resident"));
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = Sparse(algorithm, 128);
  if (tiered) options = Starved(options);
  const Generations expected = Run(options, Prompts(), kSteps);
  options.poison_free_pages = true;
  const Generations poisoned = Run(options, Prompts(), kSteps);
  CHECK(AllFinite(poisoned));
  CHECK(Difference(poisoned, expected) == "");
}

TEST_CASE("ShadowKV's share of the context grows with it, whatever the placement") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = ShadowKv(0);
  options.sparse.budget_tokens.reset();
  options.sparse.shadowkv_min_budget_tokens = 8;
  options.sparse.shadowkv_context_fraction = 8;
  const Generations share = Run(options, Prompts(), kSteps);
  CHECK(Difference(Run(Starved(options), Prompts(), kSteps), share) == "");
  options.sparse.shadowkv_context_fraction = 0;
  const Generations least = Run(options, Prompts(), kSteps);
  CHECK(Difference({least[3]}, {share[3]}) != "");
  options.sparse.shadowkv_context_fraction = 1;  // all of it
  const Generations all = Run(options, Prompts(), kSteps);
  options.sparse = {};
  CHECK(Difference(Run(options, Prompts(), kSteps), all, Rounding(options.dtype)) == "");
}

TEST_CASE("Long blocks: exact mode equals dense, Tiered equals Resident") {
  const int32_t block = GENERATE(32, 64);
  ModelRunnerOptions options = SmallRunner(kLlama, DType::kBf16);
  const Generations dense = Run(options, Prompts(), kSteps);
  options.sparse = Seer(5 * block, kLlama, block);
  const Generations sparse = Run(options, Prompts(), kSteps);
  CHECK(Difference(sparse, dense) != "");
  CHECK(Difference(Run(Starved(options), Prompts(), kSteps), sparse) == "");
  options.sparse.exact = true;
  CHECK(Difference(Run(options, Prompts(), kSteps), dense, Rounding(options.dtype)) == "");
}

TEST_CASE("Dense layers of Quest attend to everything") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  const Generations dense = Run(options, Prompts(), kSteps);
  options.sparse = Quest(128);
  const Generations sparse = Run(options, Prompts(), kSteps);
  options.sparse.quest_dense_layers = 3;  // all of this model
  CHECK(Difference(Run(options, Prompts(), kSteps), dense, Rounding(options.dtype)) == "");
  options.sparse.quest_dense_layers = 1;
  const Generations first = Run(options, Prompts(), kSteps);
  CHECK(Difference(first, dense) != "");
  CHECK(Difference(first, sparse) != "");
  CHECK(Difference(Run(Starved(options), Prompts(), kSteps), first) == "");
}

}  // namespace
}  // namespace spin::testing
