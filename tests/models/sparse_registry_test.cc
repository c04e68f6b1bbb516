// Names, options and declarations of the sparse algorithms. Scores and selections are checked
// against a reference in tests/kernels/quest_test.cc, whole generations in sparse_ladder_test.cc.
#include "models/sparse/sparse_registry.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/models/seer_gates_file.h"

namespace spin {
namespace {

using Catch::Contains;

constexpr SparseModelShape kShape = {
    .num_layers = 4, .num_q_heads = 8, .num_kv_heads = 2, .head_dim = 128};

SparseOptions Quest(int32_t budget_tokens) {
  SparseOptions options;
  options.algorithm = "quest";
  options.budget_tokens = budget_tokens;
  return options;
}

// Seer with gates that lie in a file.
SparseOptions Seer(const testing::SeerGatesFile& gates) {
  SparseOptions options;
  options.algorithm = "seer";
  options.seer_gates = testing::ScratchFolder("sparse_registry_test") + "/gates.safetensors";
  testing::WriteFile(options.seer_gates, gates.Bytes());
  return options;
}

std::string ErrorOf(const SparseOptions& options) {
  const auto made = MakeSparseAlgorithm(options, kShape);
  if (made.ok()) return "";
  CHECK(made.status().code() == absl::StatusCode::kInvalidArgument);
  return MessageOf(made.status());
}

TEST_CASE("Every name of the registry makes an algorithm; others are refused with the names") {
  for (const std::string& name : SparseAlgorithmNames()) {
    SparseOptions options = Seer(testing::MakeSeerGates(kShape));
    options.algorithm = name;
    CHECK(MakeSparseAlgorithm(options, kShape).ok());
  }
  SparseOptions options;
  options.algorithm = "magic";
  CHECK_THAT(ErrorOf(options),
             Contains("'magic'") && Contains("dense, quest, shadowkv, seer, retroinfer"));
}

TEST_CASE("Dense asks for the whole context and has no summaries") {
  const auto dense = MakeSparseAlgorithm({}, kShape).value();
  CHECK(dense->page_tokens() == 64);
  CHECK(dense->summary_elements() == 0);
  CHECK(dense->Demand(0).whole_context);
}

TEST_CASE("Quest declares its budget, the first and the tail page within it") {
  const auto quest = MakeSparseAlgorithm(Quest(2048), kShape).value();
  CHECK(quest->page_tokens() == 16);
  CHECK(quest->summary_elements() == 2 * 128);
  const LayerDemand demand = quest->Demand(3);
  CHECK_FALSE(demand.whole_context);
  CHECK(demand.fixed_pages == 2);
  CHECK(demand.fixed_pages + demand.selectable_pages == 128);
}

SparseOptions ShadowKv() {
  SparseOptions options;
  options.algorithm = "shadowkv";
  return options;
}

TEST_CASE("Quest's own budget is 2,048 tokens") {
  SparseOptions options;
  options.algorithm = "quest";
  const LayerDemand demand = MakeSparseAlgorithm(options, kShape).value()->Demand(0);
  CHECK(demand.fixed_pages + demand.selectable_pages == 128);
}

TEST_CASE("ShadowKV declares a 64th of the context beside outliers, window and tail") {
  const auto shadowkv = MakeSparseAlgorithm(ShadowKv(), kShape).value();
  CHECK(shadowkv->page_tokens() == 8);
  CHECK(shadowkv->summary_elements() == 128);
  CHECK(shadowkv->PrefillScratchBytes({.geometry = {}, .staging_pages = 101}) == 2 * 104 * 4);
  const LayerDemand demand = shadowkv->Demand(0);
  CHECK_FALSE(demand.whole_context);
  CHECK(demand.fixed_pages == 48 + 4 + 1);
  CHECK(demand.Selectable(1) == 2048 / 8);
  CHECK(demand.Selectable(262144 / 8) == 4096 / 8);
  SparseOptions exact = ShadowKv();
  exact.exact = true;
  CHECK(MakeSparseAlgorithm(exact, kShape).value()->Demand(0).whole_context);
  CHECK(MakeSparseAlgorithm(exact, kShape)
            .value()
            ->PrefillScratchBytes({.geometry = {}, .staging_pages = 101}) == 2 * 104 * 4);
}

TEST_CASE("ShadowKV's rank makes room for factors beside the landmarks") {
  SparseOptions options = ShadowKv();
  options.shadowkv_rank = 160;
  const auto shadowkv = MakeSparseAlgorithm(options, kShape).value();
  CHECK(shadowkv->key_rank() == 160);
  CHECK(shadowkv->summary_elements() == 128 + 8 * 160 / 2);
  CHECK(shadowkv->PrefillScratchBytes({.geometry = {}, .staging_pages = 101}) ==
        4 * KeyFactorScratchBytes(256, 160));
  options.exact = true;
  CHECK(MakeSparseAlgorithm(options, kShape).value()->key_rank() == 160);
  for (const int32_t rank : {-16, 8, 100, 272}) {
    options.shadowkv_rank = rank;
    CHECK_THAT(ErrorOf(options), Contains("sparse.shadowkv.rank") && Contains("256"));
  }
}

TEST_CASE("A budget of ShadowKV counts outliers and window and knows no share of the context") {
  SparseOptions options = ShadowKv();
  options.budget_tokens = 1024;
  const LayerDemand demand = MakeSparseAlgorithm(options, kShape).value()->Demand(0);
  CHECK(demand.fixed_pages == 53);
  CHECK(demand.Selectable(1 << 20) == 128 - 53);
}

TEST_CASE("What ShadowKV cannot serve is refused by key") {
  SparseOptions options = ShadowKv();
  options.budget_tokens = 431;
  CHECK_THAT(ErrorOf(options), Contains("sparse.budget_tokens") && Contains("432"));
  options.budget_tokens = 432;
  CHECK(ErrorOf(options) == "");
  options = ShadowKv();
  options.shadowkv_min_budget_tokens = 7;
  CHECK_THAT(ErrorOf(options), Contains("sparse.shadowkv.min_budget_tokens"));
  options = ShadowKv();
  options.shadowkv_context_fraction = -1;
  CHECK_THAT(ErrorOf(options), Contains("sparse.shadowkv.context_fraction"));
  options = ShadowKv();
  options.shadowkv_outlier_pages = -1;
  CHECK_THAT(ErrorOf(options), Contains("sparse.shadowkv.outlier_pages"));
  options = ShadowKv();
  options.shadowkv_local_pages = -1;
  CHECK_THAT(ErrorOf(options), Contains("sparse.shadowkv.local_pages"));
}

TEST_CASE("Dense layers and exact mode ask for the whole context") {
  SparseOptions options = Quest(2048);
  options.quest_dense_layers = 2;
  const auto mixed = MakeSparseAlgorithm(options, kShape).value();
  CHECK(mixed->Demand(1).whole_context);
  CHECK_FALSE(mixed->Demand(2).whole_context);
  options.exact = true;
  const auto exact = MakeSparseAlgorithm(options, kShape).value();
  CHECK(exact->Demand(3).whole_context);
  CHECK(exact->page_tokens() == 16);
  CHECK(exact->summary_elements() == 2 * 128);
}

TEST_CASE("Budgets and layers that Quest cannot serve are refused by key") {
  CHECK_THAT(ErrorOf(Quest(47)), Contains("sparse.budget_tokens") && Contains("48"));
  CHECK_THAT(ErrorOf(Quest(-1)), Contains("sparse.budget_tokens"));
  CHECK(ErrorOf(Quest(48)) == "");
  for (const int32_t layers : {-1, 5}) {
    SparseOptions options = Quest(2048);
    options.quest_dense_layers = layers;
    CHECK_THAT(ErrorOf(options), Contains("sparse.quest.dense_layers") && Contains("0..4"));
  }
  for (const int32_t page_tokens : {0, 8, 24, 128}) {
    SparseOptions options = Quest(2048);
    options.quest_page_tokens = page_tokens;
    CHECK_THAT(ErrorOf(options), Contains("sparse.quest.page_tokens") && Contains("16, 32 or 64"));
  }
}

TEST_CASE("Quest's pages may be larger, within the same budget") {
  SparseOptions options = Quest(2048);
  options.quest_page_tokens = GENERATE(16, 32, 64);
  const auto quest = MakeSparseAlgorithm(options, kShape).value();
  CHECK(quest->page_tokens() == options.quest_page_tokens);
  CHECK(quest->Demand(0).Mandatory(1 << 20) == 2048 / options.quest_page_tokens);
  options.budget_tokens = 3 * options.quest_page_tokens - 1;
  CHECK_THAT(ErrorOf(options), Contains("sparse.budget_tokens"));
}

TEST_CASE("Seer's page is the gates' block; the first and the tail page are within the budget") {
  const int32_t block = GENERATE(16, 32, 64);
  SparseOptions options = Seer(testing::MakeSeerGates(kShape, block));
  const auto seer = MakeSparseAlgorithm(options, kShape).value();
  CHECK(seer->page_tokens() == block);
  CHECK(seer->summary_elements() == 128);
  const LayerDemand demand = seer->Demand(3);
  CHECK_FALSE(demand.whole_context);
  CHECK(demand.fixed_pages == 2);
  CHECK(demand.fixed_pages + demand.selectable_pages == 2048 / block);
  // 2 heads x (4 + 3) x 128 x 128, and two norms, of 4 layers
  const int64_t weights = 4 * 2 * 7 * 128 * 128, norms = 4 * 2 * 128 * 4;
  CHECK(seer->WeightBytes(DType::kBf16) == 2 * weights + norms);
  CHECK(seer->WeightBytes(DType::kF32) == 4 * weights + norms);
  options.exact = true;
  const auto exact = MakeSparseAlgorithm(options, kShape).value();
  CHECK(exact->Demand(0).whole_context);
  CHECK(exact->page_tokens() == block);
  CHECK(exact->WeightBytes(DType::kBf16) == 2 * weights + norms);
}

TEST_CASE("What Seer cannot serve is refused by key") {
  SparseOptions options;
  options.algorithm = "seer";
  CHECK_THAT(ErrorOf(options), Contains("sparse.seer.gates: seer needs"));
  options.seer_gates = "no/such/file";
  CHECK_THAT(ErrorOf(options), Contains("sparse.seer.gates: cannot open no/such/file"));
  SparseModelShape other = kShape;
  other.num_layers = 5;
  CHECK_THAT(ErrorOf(Seer(testing::MakeSeerGates(other))), Contains("sparse.seer.gates: "));
  options = Seer(testing::MakeSeerGates(kShape, 64));
  options.budget_tokens = 191;
  CHECK_THAT(ErrorOf(options), Contains("sparse.budget_tokens") && Contains("192"));
  options.budget_tokens = 192;
  CHECK(ErrorOf(options) == "");
  for (const double threshold : {-0.1, 1.5, std::nan("")}) {
    options.seer_threshold = threshold;
    CHECK_THAT(ErrorOf(options), Contains("sparse.seer.threshold"));
  }
  options.seer_threshold = 0.004;
  CHECK(ErrorOf(options) == "");
  CHECK(MakeSparseAlgorithm(options, kShape).value()->Demand(0).Selectable(1000) == 1);  // the most
  SparseModelShape wide = kShape;
  wide.num_q_heads = 2 * 17;
  const auto made = MakeSparseAlgorithm(options, wide);
  REQUIRE_FALSE(made.ok());
  CHECK_THAT(MessageOf(made.status()), Contains("at most 16 query heads"));
}

SparseOptions RetroInfer() {
  SparseOptions options;
  options.algorithm = "retroinfer";
  return options;
}

TEST_CASE("RetroInfer declares clusters, and what one step of any length selects and estimates") {
  SparseOptions options = RetroInfer();
  const auto retro = MakeSparseAlgorithm(options, kShape).value();
  CHECK(retro->page_tokens() == 8);
  CHECK(retro->partition_tokens() == 16);
  CHECK(retro->summary_elements() == 2 * 128 + 64);
  CHECK(retro->unsettled_tokens() == 64);
  CHECK(retro->Demand(0).Selectable(131072 / 8) == 607);  // a 27th: 36 of 1,000, rounded up
  // Nothing that a step may choose is more than what is declared, and it is not much less.
  const int32_t least = GENERATE(0, 2048, 40000);
  for (const int32_t permille : {1, 7, 18, 100, 250, 500, 1000}) {
    options.retroinfer_retrieve_permille = permille;
    options.retroinfer_min_budget_tokens = least;
    const auto algorithm = MakeSparseAlgorithm(options, kShape).value();
    const LayerDemand demand = algorithm->Demand(0);
    CHECK_FALSE(demand.whole_context);
    const ClusterBudget budget = {.retrieve_permille = permille,
                                  .min_retrieve = std::max((least - 73 * 8 + 15) / 16, 1)};
    for (const int32_t tokens : {8, 575, 576, 1088, 5000, 8256, 40000, 131072, 1 << 20}) {
      const auto clusters = static_cast<int32_t>(IndexedTokens(tokens) / 16);
      const int32_t pages = (tokens + 7) / 8;
      const int32_t behind = pages - clusters * 2;
      const int32_t most = std::min(pages, behind + 1 + budget.MaxPages(clusters));
      CHECK(demand.fixed_pages + demand.Selectable(pages) >= most);
      CHECK(algorithm->MaxEstimated(pages) >=
            budget.Retrieve(clusters) + budget.Estimate(clusters));
    }
  }
  options.exact = true;
  const auto exact = MakeSparseAlgorithm(options, kShape).value();
  CHECK(exact->Demand(0).whole_context);
  CHECK(exact->partition_tokens() == 16);
  CHECK(exact->unsettled_tokens() == 64);
}

TEST_CASE(
    "RetroInfer's share of the clusters has a floor of 2,048 tokens, counted as a budget is") {
  SparseOptions options = RetroInfer();
  const auto retro = MakeSparseAlgorithm(options, kShape).value();
  CHECK(retro->BudgetTokens(0, 8256) == 73 * 8 + 92 * 16);     // of 512 clusters; 91 are 2,040
  CHECK(retro->BudgetTokens(0, 1088) == 73 * 8 + 64 * 16);     // all there are
  CHECK(retro->BudgetTokens(0, 131072) == 73 * 8 + 147 * 16);  // 1.8 %
  CHECK(retro->Demand(0).Selectable(1) + 2 == 4 * 92);         // 2: rounding, with the fixed ones
  CHECK(retro->MaxEstimated(1024) == 92 + 119);
  const auto attended = [&](int32_t least) {
    options.retroinfer_min_budget_tokens = least;
    return MakeSparseAlgorithm(options, kShape).value()->BudgetTokens(0, 8256);
  };
  CHECK(attended(0) == 73 * 8 + 9 * 16);
  CHECK(attended(73 * 8 + 9 * 16) == 73 * 8 + 9 * 16);
  CHECK(attended(73 * 8 + 9 * 16 + 1) == 73 * 8 + 10 * 16);
  CHECK(attended(std::numeric_limits<int32_t>::max()) == 73 * 8 + 512 * 16);
}

TEST_CASE("A budget of RetroInfer counts what is in no cluster, and is a number of clusters") {
  SparseOptions options = RetroInfer();
  options.budget_tokens = 73 * 8 + 50 * 16 + 15;
  const LayerDemand demand = MakeSparseAlgorithm(options, kShape).value()->Demand(0);
  CHECK(demand.fixed_pages == 73);  // the first page, and 575 tokens
  CHECK(demand.Selectable(1 << 20) == 4 * 50);
  // What a budget says is what it is said to be.
  options.budget_tokens = MakeSparseAlgorithm(RetroInfer(), kShape).value()->BudgetTokens(0, 8256);
  CHECK(options.budget_tokens == 73 * 8 + 92 * 16);  // of 512 clusters
  CHECK(MakeSparseAlgorithm(options, kShape).value()->Demand(0).Selectable(1 << 20) == 4 * 92);
  options.budget_tokens = std::numeric_limits<int32_t>::max();
  CHECK(MakeSparseAlgorithm(options, kShape).value()->Demand(0).Selectable(1) > 1 << 20);
}

TEST_CASE("What RetroInfer cannot serve is refused by key") {
  SparseOptions options = RetroInfer();
  options.budget_tokens = 599;
  CHECK_THAT(ErrorOf(options), Contains("sparse.budget_tokens") && Contains("600"));
  options.budget_tokens = 600;
  CHECK(ErrorOf(options) == "");
  for (const int32_t permille : {0, 1001, -1}) {
    options = RetroInfer();
    options.retroinfer_retrieve_permille = permille;
    CHECK_THAT(ErrorOf(options), Contains("sparse.retroinfer.retrieve_permille"));
  }
  for (const int32_t permille : {-1, 1001}) {
    options = RetroInfer();
    options.retroinfer_estimate_permille = permille;
    CHECK_THAT(ErrorOf(options), Contains("sparse.retroinfer.estimate_permille"));
  }
  options = RetroInfer();
  options.retroinfer_min_budget_tokens = -1;
  CHECK_THAT(ErrorOf(options), Contains("sparse.retroinfer.min_budget_tokens"));
}

}  // namespace
}  // namespace spin
