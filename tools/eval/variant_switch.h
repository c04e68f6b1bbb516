// Several variants in one executor: they share the weights and each prompt's prefill, and take turns at decoding.
//
// All of them are one algorithm at different budgets, and controls of it: their Index writes the same summaries.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"
#include "models/model_config.h"
#include "models/sparse/sparse_algorithm.h"
#include "tools/eval/variant.h"

namespace spin::eval {

class VariantSwitch final : public SparseAlgorithm {
 public:
  // `variants` have one algorithm and one value of `exact`; the first is no control. `device` outlives the switch.
  static absl::StatusOr<std::unique_ptr<VariantSwitch>> Create(std::span<const Variant> variants,
                                                               const ModelConfig& model,
                                                               const KvGeometry& geometry,
                                                               int32_t max_batch, Device& device);

  // Steps that are enqueued from now on select as variant `index` does.
  void Use(size_t index) { current_ = index; }

  int32_t page_tokens() const override { return members_[0]->page_tokens(); }
  int32_t partition_tokens() const override { return members_[0]->partition_tokens(); }
  int32_t summary_elements() const override { return members_[0]->summary_elements(); }
  int32_t unsettled_tokens() const override { return members_[0]->unsettled_tokens(); }
  int32_t key_rank() const override { return members_[0]->key_rank(); }
  LayerDemand Demand(int32_t layer) const override;  // what is enough for all
  int64_t WeightBytes(DType dtype) const override;   // each member has its own
  absl::Status Load(DType dtype, Device& device) override;
  int32_t MaxEstimated(int32_t pages) const override;  // likewise
  int64_t PrefillScratchBytes(const IndexShape& shape) const override {
    return members_[0]->PrefillScratchBytes(shape);
  }
  int64_t DecodeScratchBytes(const IndexShape& shape) const override {
    return members_[0]->DecodeScratchBytes(shape);
  }
  const int32_t* IndexPrefill(const PrefillStage& stage) const override {
    return members_[0]->IndexPrefill(stage);
  }
  void IndexOffloaded(const PrefillStage& stage) const override {
    members_[0]->IndexOffloaded(stage);
  }
  void IndexDecode(const DecodeStage& stage) const override { members_[0]->IndexDecode(stage); }
  Selection Select(const DecodeStage& stage) const override {
    return members_[current_]->Select(stage);
  }

 private:
  explicit VariantSwitch(std::vector<std::unique_ptr<SparseAlgorithm>> members)
      : members_(std::move(members)) {}

  std::vector<std::unique_ptr<SparseAlgorithm>> members_;
  size_t current_ = 0;
};

}  // namespace spin::eval
