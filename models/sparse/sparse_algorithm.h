// The seam of sparse attention: an algorithm is Index, Select and a declaration. Offload, Retrieve
// and Attention are generic. models/README.md says how to add one: a file pair here and one line in
// sparse_registry.cc.
//
// Engine thread; the methods enqueue on the stage's stream and never wait.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/math.h"
#include "common/status.h"
#include "kernels/device.h"
#include "kernels/dtype.h"
#include "kernels/ops.h"
#include "memory/kv_cache_manager.h"
#include "models/pipeline/stage.h"

namespace spin {

// The demand of a layer whose Select keeps to the budget.
inline LayerDemand DemandOf(const PageBudget& budget, const SummaryUse& summaries) {
  return {.whole_context = false,
          .fixed_pages = budget.fixed(),
          .selectable_pages = budget.selectable,
          .context_divisor = budget.context_divisor,
          .summaries = summaries};
}

// The end of a Select that has left its scores in the scratch: the best pages of each stream within the budget, or
// within the row's own; with a threshold (SelectTopKParams) those above it.
inline Selection SelectByScore(const DecodeStage& stage, const PageBudget& budget,
                               double threshold = 0) {
  const SelectScratch& scratch = stage.scratch;
  stage.ops.SelectTopK({.decode = stage.decode,
                        .scores = scratch.scores,
                        .geometry = stage.tables.geometry,
                        .budget = budget,
                        .row_pages = stage.row_pages,
                        .ids = scratch.ids,
                        .count = scratch.count,
                        .max_selected = scratch.max_selected,
                        .threshold = threshold,
                        .counters = stage.counters},
                       stage.stream);
  return {.ids = scratch.ids, .count = scratch.count, .max_selected = scratch.max_selected};
}

// What sizes the scratch of Index.
struct IndexShape {
  const Ops* ops = nullptr;
  KvGeometry geometry;
  int32_t staging_pages = 0;  // a head
  int32_t max_batch = 0;
};

class SparseAlgorithm {
 public:
  virtual ~SparseAlgorithm() = default;

  // ---- Declaration
  virtual int32_t page_tokens() const = 0;
  // Of what has a summary, on average; a page where nothing else is said.
  virtual int32_t partition_tokens() const { return page_tokens(); }
  virtual int32_t summary_elements() const = 0;  // of one partition; 0: no summaries
  // So many last tokens of a sequence IndexDecode may yet store at other places of their extent.
  virtual int32_t unsettled_tokens() const { return 0; }
  // Of the factors in the summaries that keys are rebuilt from (kv_layout.h); 0: none.
  virtual int32_t key_rank() const { return 0; }
  virtual LayerDemand Demand(int32_t layer) const = 0;
  // The sparse.budget_tokens that means the same for this layer in a context of so many tokens.
  virtual int32_t BudgetTokens(int32_t layer, int32_t context) const {
    const LayerDemand demand = Demand(layer);
    const int32_t pages = demand.fixed_pages + demand.Selectable(CeilDiv(context, page_tokens()));
    return demand.whole_context ? context : pages * page_tokens();
  }
  // Which of a row's own budgets Select heeds (DecodeStage::row_pages).
  virtual RowBudgets row_budgets() const { return RowBudgets::kAny; }
  // The most clusters (partitions that are no pages) that one Select ranks and retrieves in a stream of so many pages.
  virtual int32_t MaxRetrieved(int32_t /*pages*/) const { return 0; }
  // The most partitions that one Select leaves to an estimate in a stream of so many pages.
  virtual int32_t MaxEstimated(int32_t /*pages*/) const { return 0; }
  // Scratch of IndexPrefill and of IndexDecode.
  virtual int64_t PrefillScratchBytes(const IndexShape&) const { return 0; }
  virtual int64_t DecodeScratchBytes(const IndexShape&) const { return 0; }

  // ---- Weights of its own, if any: their bytes on the device as `dtype`, known before they are there; and their way
  // there, once, before anything below is called. `device` outlives the algorithm.
  virtual int64_t WeightBytes(DType /*dtype*/) const { return 0; }
  virtual absl::Status Load(DType /*dtype*/, Device& /*device*/) { return absl::OkStatus(); }

  // ---- Index: summaries of a prefilled layer; of the token that a decode step appends. IndexPrefill returns the
  // order in which tokens are to be stored (OffloadParams::order, in its scratch), or null: as they are.
  virtual const int32_t* IndexPrefill(const PrefillStage& stage) const = 0;
  // What of it comes after Offload: nobody reads the layer's staging any more, so it may be used up.
  virtual void IndexOffloaded(const PrefillStage& /*stage*/) const {}
  virtual void IndexDecode(const DecodeStage& stage) const = 0;

  // ---- Select: the critical partitions of each stream, ascending, the tail page among them.
  virtual Selection Select(const DecodeStage& stage) const = 0;
};

// The most pages that one Select returns, in any layer; 1 where all need the whole context.
inline int32_t MostSelected(const SparseAlgorithm& algorithm, const KvGeometry& geometry) {
  int32_t most = 1;
  for (int32_t layer = 0; layer < geometry.num_layers; ++layer) {
    const LayerDemand demand = algorithm.Demand(layer);
    if (demand.whole_context) continue;
    most = std::max(most, demand.fixed_pages + demand.Selectable(geometry.max_pages()));
  }
  return std::min(most, geometry.max_pages());
}

}  // namespace spin
