// RecordingAlgorithm: another algorithm, whose selections are also copied to pinned memory.
//
// The copies are device work on the step's stream: what they bring is there once the step has passed. Only the first
// place of a batch is recorded. No server has one: recording wraps the plan's algorithm before the executor is made.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "common/status.h"
#include "kernels/device.h"
#include "models/sparse/sparse_algorithm.h"

namespace spin::trace {

class RecordingAlgorithm final : public SparseAlgorithm {
 public:
  // REQUIRES: no layer of `inner` takes the whole context, and none selects more than `max_selected` pages. The device
  // outlives the algorithm.
  static absl::StatusOr<std::unique_ptr<RecordingAlgorithm>> Create(
      std::unique_ptr<SparseAlgorithm> inner, Device& device, int32_t num_layers,
      int32_t num_kv_heads, int32_t max_selected);

  // What the last step that has passed selected in one stream.
  std::span<const int32_t> Recorded(int32_t layer, int32_t head) const;

  int32_t page_tokens() const override { return inner_->page_tokens(); }
  int32_t summary_elements() const override { return inner_->summary_elements(); }
  LayerDemand Demand(int32_t layer) const override { return inner_->Demand(layer); }
  int64_t WeightBytes(DType dtype) const override { return inner_->WeightBytes(dtype); }
  absl::Status Load(DType dtype, Device& device) override { return inner_->Load(dtype, device); }
  int64_t IndexScratchBytes(int32_t staging_pages) const override {
    return inner_->IndexScratchBytes(staging_pages);
  }
  void IndexPrefill(const PrefillStage& stage) const override { inner_->IndexPrefill(stage); }
  void IndexDecode(const DecodeStage& stage) const override { inner_->IndexDecode(stage); }
  Selection Select(const DecodeStage& stage) const override;

 private:
  RecordingAlgorithm() = default;
  int32_t* Ids(int32_t layer) const;
  int32_t* Counts(int32_t layer) const;

  std::unique_ptr<SparseAlgorithm> inner_;
  Device* device_ = nullptr;
  int32_t num_kv_heads_ = 0;
  int32_t max_selected_ = 0;
  Buffer ids_;     // pinned, [num_layers][num_kv_heads][max_selected]
  Buffer counts_;  // pinned, [num_layers][num_kv_heads]
};

}  // namespace spin::trace
