// RetroInfer (arXiv 2505.02922): keys are clustered, 16 to a cluster on average, and a query ranks the clusters by
// their centroids: the best are attended to exactly, the next ones by their centroids and mean values, the rest not
// at all. Selection is per KV head: softmax over the centroids for each query head, then the sum over the group.
//
// Always attended to are the first page of 8 tokens and what is not clustered yet: the last 64 to 575 tokens. Index
// stores a cluster's tokens side by side, so that it is few pages; kernels/cluster_params.h has the rules.
#pragma once

#include <memory>

#include "common/status.h"
#include "models/sparse/sparse_algorithm.h"
#include "models/sparse/sparse_options.h"

namespace spin {

class RetroInferAlgorithm final : public SparseAlgorithm {
 public:
  static constexpr int32_t kPageTokens = kClusterPageTokens;
  // The sink, and the most that is behind the index: one token less than what would be indexed.
  static constexpr int32_t kFixedPages =
      1 + (kExtentTokens + kClusterLocalTokens - 1 + kPageTokens - 1) / kPageTokens;

  static absl::StatusOr<std::unique_ptr<SparseAlgorithm>> Make(const SparseOptions& options,
                                                               const SparseModelShape& shape);

  RetroInferAlgorithm(const ClusterBudget& budget, int32_t head_dim)
      : budget_(budget), head_dim_(head_dim) {}

  int32_t page_tokens() const override { return kPageTokens; }
  int32_t partition_tokens() const override { return kClusterTokens; }
  int32_t summary_elements() const override { return 2 * head_dim_ + kClusterTailElements; }
  int32_t unsettled_tokens() const override { return kClusterLocalTokens; }
  LayerDemand Demand(int32_t layer) const override;
  int32_t BudgetTokens(int32_t layer, int32_t context) const override;
  // Its budget counts clusters, whose pages are not known before they are chosen.
  RowBudgets row_budgets() const override { return RowBudgets::kCovering; }
  int32_t MaxRetrieved(int32_t pages) const override;
  int32_t MaxEstimated(int32_t pages) const override;
  int64_t PrefillScratchBytes(const IndexShape& shape) const override;
  int64_t DecodeScratchBytes(const IndexShape& shape) const override;
  const int32_t* IndexPrefill(const PrefillStage& stage) const override;
  void IndexDecode(const DecodeStage& stage) const override;
  Selection Select(const DecodeStage& stage) const override;

 private:
  const ClusterBudget budget_;
  const int32_t head_dim_;
};

}  // namespace spin
