// Which kernel computes which part of a prefill tile's attention.
#pragma once

#include <driver_types.h>

#include "kernels/cuda/cudnn_attention.h"
#include "kernels/params.h"

namespace spin::cuda {

// Enqueues the whole tile: pieces through `cudnn` (may be null) where it serves them, the rest, neighbours in one
// launch, through the portable kernel.
void DispatchPrefillAttention(const PrefillAttentionParams& p, CudnnAttention* cudnn,
                              cudaStream_t stream);

}  // namespace spin::cuda
