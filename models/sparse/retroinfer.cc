#include "models/sparse/retroinfer.h"

#include <algorithm>

#include "common/math.h"

namespace spin {
namespace {

constexpr int32_t kPageClusters = kClusterTokens / kClusterPageTokens;  // pages to a cluster

// IndexPrefill's scratch begins with the order of the staging places, [Hkv][staging pages * P].
int64_t OrderBytes(const KvGeometry& geometry, int32_t staging_pages) {
  constexpr int64_t kAlignment = 256;
  const int64_t places = int64_t{geometry.num_kv_heads} * staging_pages * geometry.page_tokens;
  return RoundUp(places * int64_t{sizeof(int32_t)}, kAlignment);
}

// sparse.budget_tokens, when given, counts everything that a head attends to exactly, so that algorithms compare at
// equal budgets: kFixedPages, the sink and the most that is in no cluster yet, and 16 tokens a retrieved cluster.
// Otherwise the paper's rule, a share of the clusters, but at least min_budget_tokens, counted in the same way.
absl::StatusOr<ClusterBudget> BudgetOf(const SparseOptions& options) {
  constexpr int32_t kFixedTokens = RetroInferAlgorithm::kFixedPages * kClusterPageTokens;
  const int32_t retrieve = options.retroinfer_retrieve_permille;
  const int32_t estimate = options.retroinfer_estimate_permille;
  if (retrieve < 1 || retrieve > 1000) {
    return InvalidArgument("sparse.retroinfer.retrieve_permille: %d is not in 1..1000", retrieve);
  }
  if (estimate < 0 || estimate > 1000) {
    return InvalidArgument("sparse.retroinfer.estimate_permille: %d is not in 0..1000", estimate);
  }
  if (options.retroinfer_min_budget_tokens < 0) {
    return InvalidArgument("sparse.retroinfer.min_budget_tokens: %d is negative",
                           options.retroinfer_min_budget_tokens);
  }
  if (options.budget_tokens.has_value()) {
    const int32_t clusters = (*options.budget_tokens - kFixedTokens) / kClusterTokens;
    if (clusters < 1) {
      return InvalidArgument(
          "sparse.budget_tokens: %d is too little for retroinfer, which attends to up to %d tokens "
          "that are in no cluster yet; at least %d",
          *options.budget_tokens, kFixedTokens, kFixedTokens + kClusterTokens);
    }
    return ClusterBudget{
        .retrieve_permille = 0, .estimate_permille = estimate, .min_retrieve = clusters};
  }
  const int32_t least = std::max(options.retroinfer_min_budget_tokens - kFixedTokens, 1);
  return ClusterBudget{.retrieve_permille = retrieve,
                       .estimate_permille = estimate,
                       .min_retrieve = CeilDiv(least, kClusterTokens)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> RetroInferAlgorithm::Make(
    const SparseOptions& options, const SparseModelShape& shape) {
  SPIN_ASSIGN_OR_RETURN(const ClusterBudget budget, BudgetOf(options));
  return std::make_unique<RetroInferAlgorithm>(budget, shape.head_dim);
}

LayerDemand RetroInferAlgorithm::Demand(int32_t /*layer*/) const {
  LayerDemand demand = {.whole_context = false,
                        .fixed_pages = kFixedPages,
                        .selectable_pages = ClusterBudget::kPagesEach * budget_.min_retrieve,
                        .summaries = {.cover = SummaryCover::kSettledExtents,
                                      .scored_elements = head_dim_,
                                      .min_retrieve = budget_.min_retrieve,
                                      .retrieve_permille = budget_.retrieve_permille,
                                      .estimate_permille = budget_.estimate_permille}};
  if (budget_.retrieve_permille == 0) return demand;
  // MaxPages(C) of C <= pages / 2 clusters: at most pages * permille / 500, and 2 for the rounding to whole clusters;
  // or min_retrieve clusters'.
  constexpr int32_t kRounding = 2;
  demand.fixed_pages += kRounding;
  demand.selectable_pages -= kRounding;
  demand.context_divisor = std::max(500 / budget_.retrieve_permille, 1);
  return demand;
}

int32_t RetroInferAlgorithm::BudgetTokens(int32_t /*layer*/, int32_t context) const {
  const auto clusters = static_cast<int32_t>(IndexedTokens(context) / kClusterTokens);
  return kFixedPages * kPageTokens + budget_.Retrieve(clusters) * kClusterTokens;
}

int32_t RetroInferAlgorithm::MaxRetrieved(int32_t pages) const {
  return budget_.Retrieve(pages / kPageClusters);
}

int32_t RetroInferAlgorithm::MaxEstimated(int32_t pages) const {
  const int32_t clusters = pages / kPageClusters;
  return budget_.Retrieve(clusters) + budget_.Estimate(clusters);
}

int64_t RetroInferAlgorithm::PrefillScratchBytes(const IndexShape& shape) const {
  return OrderBytes(shape.geometry, shape.staging_pages) +
         shape.ops->ClusterPrefillScratchBytes(shape.geometry, shape.staging_pages);
}

int64_t RetroInferAlgorithm::DecodeScratchBytes(const IndexShape& shape) const {
  return shape.ops->ClusterDecodeScratchBytes(shape.geometry, shape.max_batch);
}

const int32_t* RetroInferAlgorithm::IndexPrefill(const PrefillStage& stage) const {
  auto* order = static_cast<int32_t*>(stage.scratch);
  stage.ops.ClusterIndexPrefill(
      {.slices = stage.slices,
       .num_slices = stage.num_slices,
       .layer = stage.layer,
       .tables = stage.tables,
       .staging = stage.staging,
       .order = order,
       .scratch = static_cast<char*>(stage.scratch) +
                  OrderBytes(stage.tables.geometry, stage.staging.num_pages)},
      stage.stream);
  return order;
}

void RetroInferAlgorithm::IndexDecode(const DecodeStage& stage) const {
  stage.ops.ClusterIndexDecode({.decode = stage.decode,
                                .layer = stage.layer,
                                .tables = stage.tables,
                                .scratch = stage.index_scratch},
                               stage.stream);
}

Selection RetroInferAlgorithm::Select(const DecodeStage& stage) const {
  const SelectScratch& scratch = stage.scratch;
  stage.ops.ScoreSummaries({.decode = stage.decode,
                            .qkv = stage.qkv,
                            .layer = stage.layer,
                            .tables = stage.tables,
                            .kind = SummaryKind::kClusters,
                            .reduction = GroupReduction::kSum,
                            .logits = scratch.logits,
                            .scores = scratch.scores},
                           stage.stream);
  stage.ops.ClusterSelect({.decode = stage.decode,
                           .layer = stage.layer,
                           .tables = stage.tables,
                           .budget = budget_,
                           .row_pages = stage.row_pages,
                           .scores = scratch.scores,
                           .ids = scratch.ids,
                           .count = scratch.count,
                           .page_mask = scratch.page_mask,
                           .max_selected = scratch.max_selected,
                           .estimate_ids = scratch.estimate_ids,
                           .estimate_count = scratch.estimate_count,
                           .max_estimate = scratch.max_estimated},
                          stage.stream);
  stage.ops.ClusterEstimate({.decode = stage.decode,
                             .qkv = stage.qkv,
                             .layer = stage.layer,
                             .tables = stage.tables,
                             .estimate_ids = scratch.estimate_ids,
                             .estimate_count = scratch.estimate_count,
                             .max_estimate = scratch.max_estimated,
                             .partial = scratch.estimate},
                            stage.stream);
  return {.ids = scratch.ids,
          .count = scratch.count,
          .max_selected = scratch.max_selected,
          .page_mask = scratch.page_mask,
          .estimate = scratch.estimate};
}

}  // namespace spin
