#include <algorithm>

#include "models/sparse/sparse_registry.h"
#include "tools/eval/evaluation.h"

namespace spin::eval {
namespace {

absl::Status CanServe(const SparseOptions& sparse, const ModelConfig& model) {
  return MakeSparseAlgorithm(sparse, {.num_layers = model.num_layers,
                                      .num_q_heads = model.num_q_heads,
                                      .num_kv_heads = model.num_kv_heads,
                                      .head_dim = model.head_dim})
      .status();
}

SparseOptions WithBudget(SparseOptions sparse, int32_t budget) {
  sparse.budget_tokens = budget;
  return sparse;
}

}  // namespace

absl::StatusOr<std::vector<Variant>> ListVariants(const Options& options,
                                                  const ServerConfig& config,
                                                  const ModelConfig& model) {
  std::vector<std::string> names = options.algorithms;
  if (names.empty()) names = SparseAlgorithmNames();
  std::erase(names, "dense");
  SparseOptions sparse = config.sparse;
  sparse.exact = false;
  std::vector<Variant> variants;
  variants.emplace_back();  // dense
  std::optional<SparseOptions> first;
  for (const std::string& name : names) {
    sparse.algorithm = name;
    const absl::Status status = CanServe(WithBudget(sparse, options.budgets.back()), model);
    if (!status.ok() && options.algorithms.empty()) continue;
    if (!first.has_value()) first = sparse;
    if (options.exact) {
      Variant exact{.sparse = WithBudget(sparse, options.budgets.back())};
      exact.sparse.exact = true;
      variants.push_back(exact);
    }
    for (const int32_t budget : options.budgets) {
      variants.push_back({.sparse = WithBudget(sparse, budget)});
    }
  }
  for (const auto& [asked, selector] : {std::pair(options.window, Selector::kWindow),
                                        std::pair(options.oracle, Selector::kOracle)}) {
    if (!asked || !first.has_value()) continue;
    for (const int32_t budget : options.budgets) {
      variants.push_back({.sparse = WithBudget(*first, budget), .selector = selector});
    }
  }
  for (const Variant& variant : variants) {
    const absl::Status status = CanServe(variant.sparse, model);
    if (!status.ok()) return Annotate(status, variant.name());
  }
  return variants;
}

}  // namespace spin::eval
