#include "models/sparse/seer.h"

namespace spin {

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> SeerAlgorithm::Make(
    const SparseOptions& options, const SparseModelShape& shape) {
  if (options.seer_gates.empty()) {
    return InvalidArgument("sparse.seer.gates: seer needs the file of the model's gates");
  }
  if (shape.num_q_heads / shape.num_kv_heads > kMaxGroup) {
    return InvalidArgument("sparse.algorithm: seer serves at most %d query heads a KV head",
                           kMaxGroup);
  }
  if (!(options.seer_threshold >= 0 && options.seer_threshold <= 1)) {
    return InvalidArgument("sparse.seer.threshold: %g is not in 0..1", options.seer_threshold);
  }
  auto gates = SeerGates::Open(options.seer_gates, shape);
  if (!gates.ok()) return InvalidArgument("sparse.seer.gates: %s", MessageOf(gates.status()));
  const int32_t block = gates->block_tokens();
  const int32_t budget_tokens = options.budget_tokens.value_or(kDefaultBudgetTokens);
  const int32_t budget_pages = budget_tokens / block;
  if (budget_pages <= kFixedPages) {
    return InvalidArgument(
        "sparse.budget_tokens: %d is too little for seer with blocks of %d; at least %d",
        budget_tokens, block, (kFixedPages + 1) * block);
  }
  const PageBudget budget = {.fixed_first = kFixedFirst, .selectable = budget_pages - kFixedPages};
  return std::make_unique<SeerAlgorithm>(*std::move(gates), budget, options.seer_threshold,
                                         shape.head_dim);
}

LayerDemand SeerAlgorithm::Demand(int32_t /*layer*/) const {
  return DemandOf(budget_, {.cover = SummaryCover::kCompletePages,
                            .scored_elements = head_dim_,
                            .unscored_last = budget_.fixed_last});
}

const int32_t* SeerAlgorithm::IndexPrefill(const PrefillStage& stage) const {
  stage.ops.SeerIndexPrefill({.slices = stage.slices,
                              .num_slices = stage.num_slices,
                              .layer = stage.layer,
                              .tables = stage.tables,
                              .staging = stage.staging,
                              .gate = gates_.layer(stage.layer),
                              .rope_table = stage.rope_table},
                             stage.stream);
  return nullptr;
}

void SeerAlgorithm::IndexDecode(const DecodeStage& stage) const {
  stage.ops.SeerIndexDecode({.decode = stage.decode,
                             .qkv = stage.qkv,
                             .layer = stage.layer,
                             .tables = stage.tables,
                             .gate = gates_.layer(stage.layer),
                             .rope_table = stage.rope_table},
                            stage.stream);
}

Selection SeerAlgorithm::Select(const DecodeStage& stage) const {
  stage.ops.SeerScore({.decode = stage.decode,
                       .qkv = stage.qkv,
                       .layer = stage.layer,
                       .tables = stage.tables,
                       .gate = gates_.layer(stage.layer),
                       .rope_table = stage.rope_table,
                       .scores = stage.scratch.scores},
                      stage.stream);
  return SelectByScore(stage, budget_, threshold_);
}

}  // namespace spin
