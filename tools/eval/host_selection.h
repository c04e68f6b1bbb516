// Controls: an algorithm's declaration with a Select that the host computes from the exact attention.
//
// They bound what any algorithm of the same page size and budget could do: a sliding window from below, an oracle
// from above. Select waits for the stream, so such steps can be neither captured nor fast; the server has none.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"
#include "models/sparse/sparse_algorithm.h"
#include "tools/eval/page_reader.h"
#include "tools/eval/variant.h"

namespace spin::eval {

class HostSelection final : public SparseAlgorithm {
 public:
  // Page size, demand and summaries are `inner`'s. `device` outlives the selection. REQUIRES: selector is a control.
  static absl::StatusOr<std::unique_ptr<HostSelection>> Create(
      std::unique_ptr<SparseAlgorithm> inner, Selector selector, const KvGeometry& geometry,
      int32_t max_batch, Device& device);

  int32_t page_tokens() const override { return inner_->page_tokens(); }
  int32_t partition_tokens() const override { return inner_->partition_tokens(); }
  int32_t summary_elements() const override { return inner_->summary_elements(); }
  int32_t unsettled_tokens() const override { return inner_->unsettled_tokens(); }
  int32_t key_rank() const override { return inner_->key_rank(); }
  LayerDemand Demand(int32_t layer) const override { return inner_->Demand(layer); }
  const int32_t* IndexPrefill(const PrefillStage&) const override { return nullptr; }
  void IndexDecode(const DecodeStage&) const override {}
  Selection Select(const DecodeStage& stage) const override;

 private:
  HostSelection(std::unique_ptr<SparseAlgorithm> inner, Selector selector, Device& device,
                std::unique_ptr<PageReader> reader, int32_t width, Buffer ids, Buffer count)
      : inner_(std::move(inner)),
        selector_(selector),
        device_(device),
        reader_(std::move(reader)),
        width_(width),
        ids_(std::move(ids)),
        count_(std::move(count)) {}

  std::vector<int32_t> Choose(const std::vector<float>& mass, const KvGeometry& geometry,
                              int32_t head, int32_t pages, int32_t budget) const;

  std::unique_ptr<SparseAlgorithm> inner_;
  const Selector selector_;
  Device& device_;
  std::unique_ptr<PageReader> reader_;
  const int32_t width_;  // most pages that one Select returns
  Buffer ids_, count_;   // pinned: [max_batch][Hkv][width], [max_batch][Hkv]
};

}  // namespace spin::eval
