// What a decode step's attention reads, brought to the host: the query of a row and the keys of its pages.
//
// For controls and measures; it copies a layer's extents as they lie and waits for the stream.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/params.h"
#include "models/pipeline/stage.h"

namespace spin::eval {

// One row in one layer of a decode step.
struct LayerView {
  int32_t position = 0;        // of the step's token; the row attends to position + 1 tokens
  std::vector<float> queries;  // [Hq][d] after RoPE
  std::vector<float> keys;  // [Hkv][pages][P][d], pages = position / P + 1; zeros behind `position`

  int32_t num_pages(int32_t page_tokens) const { return position / page_tokens + 1; }
};

class PageReader {
 public:
  // Room for one row's longest layer, in pinned memory of `device`, which outlives the reader.
  static absl::StatusOr<std::unique_ptr<PageReader>> Create(Device& device,
                                                            const KvGeometry& geometry);

  // The view of batch place `place`. Works before and after the step's token is stored: its key comes from the
  // stage's qkv. Overwrites `view`.
  void Read(const DecodeStage& stage, int32_t place, LayerView& view);

  // Rows of the step.
  int32_t NumRows(const DecodeStage& stage);

 private:
  PageReader(Device& device, Buffer words, Buffer qkv, Buffer extents)
      : device_(device),
        words_(std::move(words)),
        qkv_(std::move(qkv)),
        extents_(std::move(extents)) {}

  int32_t FetchInt(const int32_t* from, Stream& stream);
  void FetchExtents(const DecodeStage& stage, int32_t row, int32_t count);
  void CopyKeys(const KvGeometry& geometry, int32_t position, LayerView& view) const;

  Device& device_;
  Buffer words_;    // [max_extents] directory entries
  Buffer qkv_;      // one token's q, k and v
  Buffer extents_;  // [max_extents] of one layer
};

}  // namespace spin::eval
