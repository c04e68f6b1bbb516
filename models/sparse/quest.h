// Quest (arXiv 2406.10774): pages (the paper's: of 16 tokens), summarised by the channel-wise bounds of their
// keys; a query scores an upper bound of its product with any key of a page. Selection is per KV
// head: softmax of the bounds for each query head, then the maximum over the group (the paper
// selects per query head).
//
// The first page (attention sink) and the tail page are fixed, within the budget.
#pragma once

#include <memory>

#include "common/status.h"
#include "models/sparse/sparse_algorithm.h"
#include "models/sparse/sparse_options.h"

namespace spin {

class QuestAlgorithm final : public SparseAlgorithm {
 public:
  static constexpr int32_t kFixedFirst = 1;
  static constexpr int32_t kFixedPages = kFixedFirst + 1;  // and the tail

  static absl::StatusOr<std::unique_ptr<SparseAlgorithm>> Make(const SparseOptions& options,
                                                               const SparseModelShape& shape);

  QuestAlgorithm(const PageBudget& budget, int32_t page_tokens, int32_t dense_layers,
                 int32_t head_dim)
      : budget_(budget),
        page_tokens_(page_tokens),
        dense_layers_(dense_layers),
        head_dim_(head_dim) {}

  int32_t page_tokens() const override { return page_tokens_; }
  int32_t summary_elements() const override { return 2 * head_dim_; }
  LayerDemand Demand(int32_t layer) const override;
  const int32_t* IndexPrefill(const PrefillStage& stage) const override;
  void IndexDecode(const DecodeStage& stage) const override;
  Selection Select(const DecodeStage& stage) const override;

 private:
  const PageBudget budget_;
  const int32_t page_tokens_;
  const int32_t dense_layers_;  // the first layers attend to everything
  const int32_t head_dim_;
};

}  // namespace spin
