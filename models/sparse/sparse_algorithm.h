// The seam of sparse attention: an algorithm is Index, Select and a declaration. Offload, Retrieve
// and Attention are generic. models/README.md says how to add one: a file pair here and one line in
// sparse_registry.cc.
//
// Engine thread; the methods enqueue on the stage's stream and never wait.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/dtype.h"
#include "memory/kv_cache_manager.h"
#include "models/pipeline/stage.h"

namespace spin {

// The demand of a layer whose Select keeps to the budget.
inline LayerDemand DemandOf(const PageBudget& budget) {
  return {.whole_context = false,
          .fixed_pages = budget.fixed(),
          .selectable_pages = budget.selectable,
          .context_divisor = budget.context_divisor};
}

// The end of a Select that has left its scores in the scratch: the best pages of each stream within the budget, or
// within the row's own.
inline Selection SelectByScore(const DecodeStage& stage, const PageBudget& budget) {
  const SelectScratch& scratch = stage.scratch;
  stage.ops.SelectTopK({.decode = stage.decode,
                        .scores = scratch.scores,
                        .geometry = stage.tables.geometry,
                        .budget = budget,
                        .row_pages = stage.row_pages,
                        .ids = scratch.ids,
                        .count = scratch.count,
                        .max_selected = scratch.max_selected},
                       stage.stream);
  return {.ids = scratch.ids, .count = scratch.count, .max_selected = scratch.max_selected};
}

class SparseAlgorithm {
 public:
  virtual ~SparseAlgorithm() = default;

  // ---- Declaration
  virtual int32_t page_tokens() const = 0;
  virtual int32_t summary_elements() const = 0;  // of one partition; 0: no summaries
  virtual LayerDemand Demand(int32_t layer) const = 0;
  // Scratch of IndexPrefill, for staging of so many pages a head.
  virtual int64_t IndexScratchBytes(int32_t /*staging_pages*/) const { return 0; }

  // ---- Weights of its own, if any: their bytes on the device as `dtype`, known before they are there; and their way
  // there, once, before anything below is called. `device` outlives the algorithm.
  virtual int64_t WeightBytes(DType /*dtype*/) const { return 0; }
  virtual absl::Status Load(DType /*dtype*/, Device& /*device*/) { return absl::OkStatus(); }

  // ---- Index: summaries of a prefilled layer; of the token that a decode step appends.
  virtual void IndexPrefill(const PrefillStage& stage) const = 0;
  virtual void IndexDecode(const DecodeStage& stage) const = 0;

  // ---- Select: the critical partitions of each stream, ascending, the tail page among them.
  virtual Selection Select(const DecodeStage& stage) const = 0;
};

}  // namespace spin
