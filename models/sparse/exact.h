// Exact mode (sparse.exact): an algorithm whose Select returns every partition. Its Index still
// runs, and may store tokens in an order of its own. What it serves must equal dense attention; that
// is the first rung of every algorithm's correctness ladder.
#pragma once

#include <memory>
#include <utility>

#include "models/sparse/sparse_algorithm.h"

namespace spin {

class ExactAlgorithm final : public SparseAlgorithm {
 public:
  explicit ExactAlgorithm(std::unique_ptr<SparseAlgorithm> inner) : inner_(std::move(inner)) {}

  int32_t page_tokens() const override { return inner_->page_tokens(); }
  int32_t partition_tokens() const override { return inner_->partition_tokens(); }
  int32_t summary_elements() const override { return inner_->summary_elements(); }
  int32_t unsettled_tokens() const override { return inner_->unsettled_tokens(); }
  int32_t key_rank() const override { return inner_->key_rank(); }
  LayerDemand Demand(int32_t layer) const override {
    return {.whole_context = true, .summaries = inner_->Demand(layer).summaries};
  }
  int64_t WeightBytes(DType dtype) const override { return inner_->WeightBytes(dtype); }
  absl::Status Load(DType dtype, Device& device) override { return inner_->Load(dtype, device); }
  int64_t PrefillScratchBytes(const IndexShape& shape) const override {
    return inner_->PrefillScratchBytes(shape);
  }
  int64_t DecodeScratchBytes(const IndexShape& shape) const override {
    return inner_->DecodeScratchBytes(shape);
  }
  const int32_t* IndexPrefill(const PrefillStage& stage) const override {
    return inner_->IndexPrefill(stage);
  }
  void IndexOffloaded(const PrefillStage& stage) const override { inner_->IndexOffloaded(stage); }
  void IndexDecode(const DecodeStage& stage) const override { inner_->IndexDecode(stage); }
  Selection Select(const DecodeStage&) const override { return {}; }

 private:
  std::unique_ptr<SparseAlgorithm> inner_;
};

}  // namespace spin
