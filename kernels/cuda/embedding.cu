// Rows of a table: token embeddings into the residual stream, and rows of the residual that get logits.
//
// Floor: bytes read and written over the copy bandwidth; one CTA a row, 16 bytes a lane where rows are aligned.
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) EmbeddingKernel(EmbeddingParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const int32_t i = blockIdx.x;
  int32_t id;
  if (p.ids != nullptr) {
    id = p.ids[i];
  } else {
    if (i >= *p.decode.num_rows) return;
    id = p.decode.token[p.decode.rows[i]];
  }
  const T* from = static_cast<const T*>(p.table) + int64_t{id} * p.hidden;
  float* to = p.out + int64_t{i} * p.hidden;
  if (p.hidden % 8 == 0) {  // rows of either type begin at multiples of 16 bytes
    for (int32_t c = threadIdx.x * 4; c < p.hidden; c += kThreads * 4) {
      float4 v;
      if constexpr (sizeof(T) == 4) {
        v = *reinterpret_cast<const float4*>(from + c);
      } else {
        const uint2 w = *reinterpret_cast<const uint2*>(from + c);
        v = make_float4(LowBf16(w.x), HighBf16(w.x), LowBf16(w.y), HighBf16(w.y));
      }
      *reinterpret_cast<float4*>(to + c) = v;
    }
    return;
  }
  for (int32_t c = threadIdx.x; c < p.hidden; c += kThreads) to[c] = ToFloat(from[c]);
}

__global__ void __launch_bounds__(kThreads) GatherRowsKernel(GatherRowsParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const float* from = p.in + int64_t{p.index[blockIdx.x]} * p.width;
  float* to = p.out + int64_t{blockIdx.x} * p.width;
  for (int32_t c = threadIdx.x; c < p.width; c += kThreads) to[c] = from[c];
}

}  // namespace

void Embedding(const EmbeddingParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  Launch(p.dtype == DType::kF32 ? EmbeddingKernel<float> : EmbeddingKernel<Bf16>, p.n, kThreads, 0,
         stream, p);
}

void GatherRows(const GatherRowsParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  Launch(GatherRowsKernel, p.n, kThreads, 0, stream, p);
}

}  // namespace spin::cuda
