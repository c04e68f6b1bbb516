// Names, options and declarations of the sparse algorithms. Scores and selections are checked
// against a reference in tests/kernels/quest_test.cc, whole generations in sparse_ladder_test.cc.
#include "models/sparse/sparse_registry.h"

#include <catch2/catch.hpp>

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

std::string ErrorOf(const SparseOptions& options) {
  const auto made = MakeSparseAlgorithm(options, kShape);
  if (made.ok()) return "";
  CHECK(made.status().code() == absl::StatusCode::kInvalidArgument);
  return MessageOf(made.status());
}

TEST_CASE("Every name of the registry makes an algorithm; others are refused with the names") {
  for (const std::string& name : SparseAlgorithmNames()) {
    SparseOptions options;
    options.algorithm = name;
    CHECK(MakeSparseAlgorithm(options, kShape).ok());
  }
  SparseOptions options;
  options.algorithm = "magic";
  CHECK_THAT(ErrorOf(options), Contains("'magic'") && Contains("dense, quest"));
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
}

}  // namespace
}  // namespace spin
