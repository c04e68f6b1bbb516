// Attention of prefill through cuDNN, whose kernels for Hopper and Blackwell run at twice the rate of portable ones. A
// library of half a gigabyte: found at run time, never needed. Without it (or without its header in the build, see
// cudnn_attention_absent.cc) the portable kernel does all the work.
#pragma once

#include <driver_types.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "common/status.h"
#include "kernels/cuda/prefill_pieces.h"
#include "kernels/params.h"

namespace spin::cuda {

// For one thread, and for one stream at a time: plans may share what they scribble on.
class CudnnAttention {
 public:
  // Opens the library (cudnn_library.h). An error says why this device goes without.
  static absl::StatusOr<std::unique_ptr<CudnnAttention>> Load(int device);
  virtual ~CudnnAttention() = default;

  // Makes the plans for pieces of a tile of up to `tile_tokens` now, behind as much as staging holds: the first takes
  // most of a second, further ones 45 ms each, and the first prompt that needs one would wait for it.
  virtual void Prepare(const KvGeometry& geometry, int32_t staging_pages, int32_t tile_tokens) = 0;

  // Enqueues bottom-right causal attention of a piece (prefill_pieces.h) of the tile `p`, all heads. False, and
  // nothing that matters enqueued, where cuDNN does not serve this shape.
  virtual bool Run(const PrefillAttentionParams& p, const PrefillSegment& piece,
                   cudaStream_t stream) = 0;

  // Pieces that this process has run so.
  static int64_t PiecesRun() { return pieces_run_.load(std::memory_order_relaxed); }

 protected:
  inline static std::atomic<int64_t> pieces_run_ = 0;
};

}  // namespace spin::cuda
