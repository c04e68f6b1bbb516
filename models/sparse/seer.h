// SeerAttention-R (arXiv 2506.08889): a small trained gate a layer guesses, for each KV head, which blocks of the
// context hold the attention of its query group. A page is a block; its summary is the gate's view of its keys.
//
// As the gates were trained: a block is seen once it is complete, rotated by its first token's position; the first
// block and the query's own are always attended to, within the budget. The rest is chosen by the gate's logits, by
// either of the paper's rules: the best ones up to the token budget; or, of those, the ones whose probability (softmax
// over the blocks) is above a threshold. Gates, and with them the block's length, come from a file (sparse.seer.gates).
#pragma once

#include <memory>
#include <utility>

#include "common/status.h"
#include "models/sparse/seer_gates.h"
#include "models/sparse/sparse_algorithm.h"
#include "models/sparse/sparse_options.h"

namespace spin {

class SeerAlgorithm final : public SparseAlgorithm {
 public:
  static constexpr int32_t kFixedFirst = 1;
  static constexpr int32_t kFixedPages = kFixedFirst + 1;  // and the tail
  static constexpr int32_t kMaxGroup = 16;                 // query heads a KV head

  static absl::StatusOr<std::unique_ptr<SparseAlgorithm>> Make(const SparseOptions& options,
                                                               const SparseModelShape& shape);

  // `threshold` 0: none.
  SeerAlgorithm(SeerGates gates, const PageBudget& budget, double threshold, int32_t head_dim)
      : gates_(std::move(gates)), budget_(budget), threshold_(threshold), head_dim_(head_dim) {}

  int32_t page_tokens() const override { return gates_.block_tokens(); }
  int32_t summary_elements() const override { return head_dim_; }
  LayerDemand Demand(int32_t layer) const override;
  int64_t WeightBytes(DType dtype) const override { return gates_.DeviceBytes(dtype); }
  absl::Status Load(DType dtype, Device& device) override { return gates_.Load(dtype, device); }
  const int32_t* IndexPrefill(const PrefillStage& stage) const override;
  void IndexDecode(const DecodeStage& stage) const override;
  Selection Select(const DecodeStage& stage) const override;

 private:
  SeerGates gates_;
  const PageBudget budget_;
  const double threshold_;
  const int32_t head_dim_;
};

}  // namespace spin
