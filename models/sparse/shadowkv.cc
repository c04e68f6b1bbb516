#include "models/sparse/shadowkv.h"

#include "common/math.h"

namespace spin {
namespace {

// sparse.budget_tokens, when given, counts everything that a head attends to, so that algorithms compare at equal
// budgets. Otherwise the paper's rule: a fraction of the context is selected, outliers and local window beside it.
absl::StatusOr<PageBudget> BudgetOf(const SparseOptions& options) {
  constexpr int32_t kPageTokens = ShadowKvAlgorithm::kPageTokens;
  if (options.shadowkv_outlier_pages < 0) {
    return InvalidArgument("sparse.shadowkv.outlier_pages: %d is negative",
                           options.shadowkv_outlier_pages);
  }
  if (options.shadowkv_local_pages < 0) {
    return InvalidArgument("sparse.shadowkv.local_pages: %d is negative",
                           options.shadowkv_local_pages);
  }
  PageBudget budget = {.fixed_last = options.shadowkv_local_pages + 1,
                       .outliers = options.shadowkv_outlier_pages};
  if (options.budget_tokens.has_value()) {
    budget.selectable = *options.budget_tokens / kPageTokens - budget.fixed();
    if (budget.selectable <= 0) {
      return InvalidArgument(
          "sparse.budget_tokens: %d is too little for shadowkv with %d outlier and %d local pages; "
          "at least %d",
          *options.budget_tokens, options.shadowkv_outlier_pages, options.shadowkv_local_pages,
          (budget.fixed() + 1) * kPageTokens);
    }
    return budget;
  }
  if (options.shadowkv_context_fraction < 0) {
    return InvalidArgument("sparse.shadowkv.context_fraction: %d is negative",
                           options.shadowkv_context_fraction);
  }
  if (options.shadowkv_min_budget_tokens < kPageTokens) {
    return InvalidArgument("sparse.shadowkv.min_budget_tokens: %d is less than a page of %d",
                           options.shadowkv_min_budget_tokens, kPageTokens);
  }
  budget.selectable = options.shadowkv_min_budget_tokens / kPageTokens;
  budget.context_divisor = options.shadowkv_context_fraction;
  return budget;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> ShadowKvAlgorithm::Make(
    const SparseOptions& options, const SparseModelShape& shape) {
  SPIN_ASSIGN_OR_RETURN(const PageBudget budget, BudgetOf(options));
  return std::make_unique<ShadowKvAlgorithm>(budget, shape);
}

int64_t ShadowKvAlgorithm::PrefillScratchBytes(const IndexShape& shape) const {
  return int64_t{shape_.num_kv_heads} * RoundUp(shape.staging_pages, 4) * int64_t{sizeof(float)};
}

const int32_t* ShadowKvAlgorithm::IndexPrefill(const PrefillStage& stage) const {
  stage.ops.LandmarkIndexPrefill({.slices = stage.slices,
                                  .num_slices = stage.num_slices,
                                  .layer = stage.layer,
                                  .tables = stage.tables,
                                  .staging = stage.staging,
                                  .outlier_pages = budget_.outliers,
                                  .local_pages = budget_.fixed_last - 1,
                                  .spread = static_cast<float*>(stage.scratch)},
                                 stage.stream);
  return nullptr;
}

void ShadowKvAlgorithm::IndexDecode(const DecodeStage& stage) const {
  stage.ops.LandmarkIndexDecode(
      {.decode = stage.decode, .qkv = stage.qkv, .layer = stage.layer, .tables = stage.tables},
      stage.stream);
}

Selection ShadowKvAlgorithm::Select(const DecodeStage& stage) const {
  stage.ops.ScoreSummaries({.decode = stage.decode,
                            .qkv = stage.qkv,
                            .layer = stage.layer,
                            .tables = stage.tables,
                            .kind = SummaryKind::kMean,
                            .reduction = GroupReduction::kMax,
                            .unscored_last = budget_.fixed_last,
                            .logits = stage.scratch.logits,
                            .scores = stage.scratch.scores},
                           stage.stream);
  return SelectByScore(stage, budget_);
}

}  // namespace spin
