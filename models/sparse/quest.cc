#include "models/sparse/quest.h"

namespace spin {

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> QuestAlgorithm::Make(
    const SparseOptions& options, const SparseModelShape& shape) {
  const int32_t budget_tokens = options.budget_tokens.value_or(kDefaultBudgetTokens);
  const int32_t page_tokens = options.quest_page_tokens;
  if (page_tokens != 16 && page_tokens != 32 && page_tokens != 64) {
    return InvalidArgument("sparse.quest.page_tokens: %d is not 16, 32 or 64", page_tokens);
  }
  const int32_t budget_pages = budget_tokens / page_tokens;
  if (budget_pages <= kFixedPages) {
    return InvalidArgument("sparse.budget_tokens: %d is too little for quest; at least %d",
                           budget_tokens, (kFixedPages + 1) * page_tokens);
  }
  if (options.quest_dense_layers < 0 || options.quest_dense_layers > shape.num_layers) {
    return InvalidArgument("sparse.quest.dense_layers: %d is not in 0..%d",
                           options.quest_dense_layers, shape.num_layers);
  }
  const PageBudget budget = {.fixed_first = kFixedFirst, .selectable = budget_pages - kFixedPages};
  return std::make_unique<QuestAlgorithm>(budget, page_tokens, options.quest_dense_layers,
                                          shape.head_dim);
}

LayerDemand QuestAlgorithm::Demand(int32_t layer) const {
  const SummaryUse summaries = {.cover = SummaryCover::kBegunPages,
                                .scored_elements = summary_elements()};
  if (layer < dense_layers_) return {.whole_context = true, .summaries = summaries};
  return DemandOf(budget_, summaries);
}

const int32_t* QuestAlgorithm::IndexPrefill(const PrefillStage& stage) const {
  stage.ops.QuestIndexPrefill({.slices = stage.slices,
                               .num_slices = stage.num_slices,
                               .layer = stage.layer,
                               .tables = stage.tables,
                               .staging = stage.staging},
                              stage.stream);
  return nullptr;
}

void QuestAlgorithm::IndexDecode(const DecodeStage& stage) const {
  stage.ops.QuestIndexDecode(
      {.decode = stage.decode, .qkv = stage.qkv, .layer = stage.layer, .tables = stage.tables},
      stage.stream);
}

Selection QuestAlgorithm::Select(const DecodeStage& stage) const {
  if (stage.layer < dense_layers_) return {};
  stage.ops.ScoreSummaries({.decode = stage.decode,
                            .qkv = stage.qkv,
                            .layer = stage.layer,
                            .tables = stage.tables,
                            .kind = SummaryKind::kBounds,
                            .reduction = GroupReduction::kMax,
                            .logits = stage.scratch.logits,
                            .scores = stage.scratch.scores},
                           stage.stream);
  return SelectByScore(stage, budget_);
}

}  // namespace spin
