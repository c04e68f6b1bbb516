#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "models/sparse/sparse_registry.h"
#include "tools/eval/evaluation.h"

namespace spin::eval {
namespace {

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> Make(const SparseOptions& sparse,
                                                      const ModelConfig& model) {
  return MakeSparseAlgorithm(sparse, {.num_layers = model.num_layers,
                                      .num_q_heads = model.num_q_heads,
                                      .num_kv_heads = model.num_kv_heads,
                                      .head_dim = model.head_dim});
}

// Tokens that a stream attends to at this context under the server's own options, without a number from here.
absl::StatusOr<int32_t> OwnBudget(SparseOptions sparse, const ModelConfig& model, int32_t context) {
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<SparseAlgorithm> algorithm, Make(sparse, model));
  return algorithm->BudgetTokens(model.num_layers - 1, context);
}

SparseOptions WithBudget(SparseOptions sparse, int32_t budget) {
  sparse.budget_tokens = budget;
  return sparse;
}

// The algorithm at each budget and, asked for, the controls of its page size.
VariantGroup AtBudgets(const SparseOptions& sparse, std::span<const int32_t> budgets,
                       const Options& options, bool with_controls) {
  VariantGroup group;
  const auto add = [&](Selector selector) {
    for (const int32_t budget : budgets) {
      group.push_back({.sparse = WithBudget(sparse, budget), .selector = selector});
    }
  };
  add(Selector::kAlgorithm);
  if (with_controls && options.window) add(Selector::kWindow);
  if (with_controls && options.oracle) add(Selector::kOracle);
  return group;
}

}  // namespace

absl::StatusOr<std::vector<VariantGroup>> ListVariants(const Options& options,
                                                       const ServerConfig& config,
                                                       const ModelConfig& model) {
  std::vector<std::string> names = options.algorithms;
  if (names.empty()) names = SparseAlgorithmNames();
  std::erase(names, "dense");
  std::vector<VariantGroup> groups = {{Variant{}}};  // dense
  bool has_controls = false;
  for (const std::string& name : names) {
    SparseOptions sparse = config.sparse;
    sparse.algorithm = name;
    sparse.exact = false;
    std::vector<int32_t> asked = options.budgets;
    absl::Status refusal;
    if (options.own_budget) {
      const absl::StatusOr<int32_t> own = OwnBudget(sparse, model, options.context);
      if (own.ok()) asked.push_back(*own);
      if (!own.ok()) refusal = own.status();
      std::ranges::sort(asked);
      asked.erase(std::ranges::unique(asked).begin(), asked.end());
    }
    std::vector<int32_t> budgets;
    for (const int32_t budget : asked) {
      const absl::Status status = Make(WithBudget(sparse, budget), model).status();
      if (status.ok()) budgets.push_back(budget);
      if (!status.ok()) refusal = status;
    }
    if (budgets.empty() && !options.algorithms.empty()) return Annotate(refusal, name);
    if (budgets.empty()) continue;
    if (options.exact) {
      Variant exact{.sparse = WithBudget(sparse, budgets.back())};
      exact.sparse.exact = true;
      groups.push_back({exact});
    }
    groups.push_back(AtBudgets(sparse, budgets, options, !std::exchange(has_controls, true)));
  }
  return groups;
}

}  // namespace spin::eval
