#include "models/sparse/shadowkv.h"

#include <algorithm>

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

absl::Status CheckRank(int32_t rank, const SparseModelShape& shape) {
  const int32_t most = std::min(kMaxKeyRank, shape.num_kv_heads * shape.head_dim);
  if (rank >= 0 && rank <= most && rank % kKeyRankStep == 0) return absl::OkStatus();
  return InvalidArgument("sparse.shadowkv.rank: %d is not a multiple of %d in 0..%d", rank,
                         kKeyRankStep, most);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> ShadowKvAlgorithm::Make(
    const SparseOptions& options, const SparseModelShape& shape) {
  SPIN_ASSIGN_OR_RETURN(const PageBudget budget, BudgetOf(options));
  SPIN_RETURN_IF_ERROR(CheckRank(options.shadowkv_rank, shape));
  return std::make_unique<ShadowKvAlgorithm>(budget, shape, options.shadowkv_rank);
}

int32_t ShadowKvAlgorithm::summary_elements() const {
  const KvGeometry page = {
      .num_kv_heads = shape_.num_kv_heads, .page_tokens = kPageTokens, .key_rank = rank_};
  return shape_.head_dim + page.key_piece();
}

LayerDemand ShadowKvAlgorithm::Demand(int32_t /*layer*/) const {
  return DemandOf(budget_, {.cover = SummaryCover::kCompletePages,
                            .scored_elements = shape_.head_dim,  // the landmark
                            .unscored_last = budget_.fixed_last});
}

// Landmarks and factors have all of it in turn.
int64_t ShadowKvAlgorithm::PrefillScratchBytes(const IndexShape& shape) const {
  const int64_t spread =
      int64_t{shape_.num_kv_heads} * RoundUp(shape.staging_pages, 4) * int64_t{sizeof(float)};
  if (rank_ == 0) return spread;
  const int32_t width = shape_.num_kv_heads * shape_.head_dim;
  return std::max(spread, kKeySlices * KeyFactorScratchBytes(width, rank_));
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

// Behind Offload: the keys in staging lose their rotation.
void ShadowKvAlgorithm::IndexOffloaded(const PrefillStage& stage) const {
  if (rank_ == 0) return;
  stage.ops.KeyFactorPrefill({.slices = stage.slices,
                              .num_slices = stage.num_slices,
                              .layer = stage.layer,
                              .tables = stage.tables,
                              .staging = stage.staging,
                              .rope_table = stage.rope_table,
                              .scratch = stage.scratch},
                             stage.stream);
}

void ShadowKvAlgorithm::IndexDecode(const DecodeStage& stage) const {
  stage.ops.LandmarkIndexDecode(
      {.decode = stage.decode, .qkv = stage.qkv, .layer = stage.layer, .tables = stage.tables},
      stage.stream);
  if (rank_ == 0) return;
  stage.ops.KeyFactorDecode({.decode = stage.decode,
                             .qkv = stage.qkv,
                             .layer = stage.layer,
                             .tables = stage.tables,
                             .rope_table = stage.rope_table},
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
  Selection selection = SelectByScore(stage, budget_);
  if (rank_ > 0) selection.whole_last = budget_.fixed_last;
  return selection;
}

}  // namespace spin
