// ReplayAlgorithm: another algorithm whose selections are replaced by recorded ones, so that a benchmark with random
// weights or prompts fetches what a real model would have.
//
// Index and Select of the other algorithm still run and cost what they cost; one small kernel a layer
// (Ops::ReplaySelection) then overwrites what Select chose. Everything is read from device memory, so that a device may
// capture the step. Layers that take the whole context are left alone.
//
// The sequence may be longer than the recorded one: a recorded page then stands for several pages in a row, and
// selections keep their share of the context and their order in time.
#pragma once

#include <cstdint>
#include <memory>

#include "common/status.h"
#include "kernels/device.h"
#include "models/sparse/sparse_algorithm.h"
#include "tools/trace/selection_trace.h"

namespace spin::trace {

struct ReplayOptions {
  int32_t num_layers = 0;      // of the model
  int32_t max_rows = 0;        // of the tables
  int32_t context_tokens = 0;  // what every sequence has when it starts to decode, at least
  // Each row begins at a random step of the trace; at one from which so many steps follow, where there is one.
  int32_t run_steps = 0;
  uint64_t seed = 0;
};

class ReplayAlgorithm final : public SparseAlgorithm {
 public:
  // InvalidArgument: the context is shorter than the trace's, the recorded selections are not as large as those of
  // `inner`, or it selects parts of pages. The device outlives the algorithm.
  static absl::StatusOr<std::unique_ptr<SparseAlgorithm>> Create(
      std::unique_ptr<SparseAlgorithm> inner, Device& device, const SelectionTrace& trace,
      const ReplayOptions& options);

  int32_t page_tokens() const override { return inner_->page_tokens(); }
  int32_t summary_elements() const override { return inner_->summary_elements(); }
  int32_t unsettled_tokens() const override { return inner_->unsettled_tokens(); }
  int32_t key_rank() const override { return inner_->key_rank(); }
  LayerDemand Demand(int32_t layer) const override { return inner_->Demand(layer); }
  int32_t BudgetTokens(int32_t layer, int32_t context) const override {
    return inner_->BudgetTokens(layer, context);
  }
  RowBudgets row_budgets() const override { return RowBudgets::kNone; }
  int64_t PrefillScratchBytes(const IndexShape& shape) const override {
    return inner_->PrefillScratchBytes(shape);
  }
  int64_t DecodeScratchBytes(const IndexShape& shape) const override {
    return inner_->DecodeScratchBytes(shape);
  }
  int64_t WeightBytes(DType dtype) const override { return inner_->WeightBytes(dtype); }
  absl::Status Load(DType dtype, Device& device) override { return inner_->Load(dtype, device); }
  const int32_t* IndexPrefill(const PrefillStage& stage) const override {
    return inner_->IndexPrefill(stage);
  }
  void IndexOffloaded(const PrefillStage& stage) const override { inner_->IndexOffloaded(stage); }
  void IndexDecode(const DecodeStage& stage) const override { inner_->IndexDecode(stage); }
  Selection Select(const DecodeStage& stage) const override;

 private:
  ReplayAlgorithm() = default;
  absl::Status Upload(Device& device, const SelectionTrace& trace, const ReplayOptions& options);

  std::unique_ptr<SparseAlgorithm> inner_;
  int32_t num_steps_ = 0, num_layers_ = 0, num_heads_ = 0, max_recorded_ = 0;  // of the trace
  int32_t pages_per_recorded_ = 1;
  // Device memory, as ReplaySelectionParams has it.
  Buffer recorded_, recorded_count_, phase_;
};

// Selections without any order in time, for `header`: page 0, the tail, and others drawn anew at each step.
SelectionTrace RandomSelections(const TraceHeader& header, uint64_t seed);

}  // namespace spin::trace
