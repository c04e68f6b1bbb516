// ShadowKV (arXiv 2410.21465): pages of 8 tokens, each scored by its landmark, the mean of its keys after RoPE.
// Selection is per KV head: softmax over the landmarks for each query head, then the maximum over the group.
//
// Always attended to are the local window (the last pages and the tail) and the outliers, the pages of the prompt whose
// keys agree least with their mean. New pages are indexed as they are completed (the paper never indexes generated
// tokens); outliers are chosen at prefill alone.
//
// With a rank, values alone are retrieved: keys are rebuilt from low-rank factors, which lie beside the landmarks. The
// local window, outliers and rows with short prompts keep exact keys, and everything does while the whole context is
// attended to. Without, keys and values are both retrieved.
#pragma once

#include <memory>

#include "common/status.h"
#include "models/sparse/sparse_algorithm.h"
#include "models/sparse/sparse_options.h"

namespace spin {

class ShadowKvAlgorithm final : public SparseAlgorithm {
 public:
  static constexpr int32_t kPageTokens = kLandmarkTokens;

  static absl::StatusOr<std::unique_ptr<SparseAlgorithm>> Make(const SparseOptions& options,
                                                               const SparseModelShape& shape);

  ShadowKvAlgorithm(const PageBudget& budget, const SparseModelShape& shape, int32_t rank)
      : budget_(budget), shape_(shape), rank_(rank) {}

  int32_t page_tokens() const override { return kPageTokens; }
  int32_t summary_elements() const override;
  int32_t key_rank() const override { return rank_; }
  LayerDemand Demand(int32_t layer) const override;
  int64_t PrefillScratchBytes(const IndexShape& shape) const override;
  const int32_t* IndexPrefill(const PrefillStage& stage) const override;
  void IndexOffloaded(const PrefillStage& stage) const override;
  void IndexDecode(const DecodeStage& stage) const override;
  Selection Select(const DecodeStage& stage) const override;

 private:
  const PageBudget budget_;
  const SparseModelShape shape_;
  const int32_t rank_;
};

}  // namespace spin
