// RMSNorm of rows of the f32 residual stream into activations.
//
// One CTA a row. A row is read once, kept in registers (up to kMaxVectors float4 a thread) between the sum and the
// scaling; longer rows are read again, from the cache. Floor: 6 bytes an element (f32 in, bf16 out) over the copy
// bandwidth; for a few rows the latency of one load and one block reduction.
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxVectors = 8;  // rows up to 8,192 stay in registers

// The sum over the block, in every thread.
__device__ float BlockSum(float value) {
  __shared__ float sums[kThreads / kWarp];
  value = WarpSum(value);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int w = 0; w < kThreads / kWarp; ++w) total += sums[w];
  return total;
}

template <typename T>
__device__ __forceinline__ void Store4(T* to, float4 v) {
  if constexpr (sizeof(T) == 4) {
    *reinterpret_cast<float4*>(to) = v;
  } else {
    *reinterpret_cast<uint2*>(to) = make_uint2(PackBf16(v.x, v.y), PackBf16(v.z, v.w));
  }
}

// REQUIRES: hidden % 4 == 0 and hidden <= kMaxVectors * 4 * kThreads.
template <typename T>
__global__ void __launch_bounds__(kThreads) RmsNormVectors(RmsNormParams p) {
  const int32_t vectors = p.hidden / 4;
  const auto* weight = reinterpret_cast<const float4*>(p.weight);
  WaitForPredecessors();
  AllowSuccessors();
  const auto* in = reinterpret_cast<const float4*>(p.in + int64_t{blockIdx.x} * p.hidden);
  T* out = static_cast<T*>(p.out) + int64_t{blockIdx.x} * p.hidden;
  float4 x[kMaxVectors];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
    const int32_t at = i * kThreads + threadIdx.x;
    x[i] = at < vectors ? in[at] : make_float4(0, 0, 0, 0);
    sum += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
  }
  const float scale = rsqrtf(BlockSum(sum) / static_cast<float>(p.hidden) + p.eps);
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
    const int32_t at = i * kThreads + threadIdx.x;
    if (at >= vectors) break;
    const float4 w = weight[at];
    Store4(out + 4 * at, make_float4(x[i].x * scale * w.x, x[i].y * scale * w.y,
                                     x[i].z * scale * w.z, x[i].w * scale * w.w));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) RmsNormAny(RmsNormParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const float* in = p.in + int64_t{blockIdx.x} * p.hidden;
  T* out = static_cast<T*>(p.out) + int64_t{blockIdx.x} * p.hidden;
  float sum = 0;
  for (int32_t c = threadIdx.x; c < p.hidden; c += kThreads) sum += in[c] * in[c];
  const float scale = rsqrtf(BlockSum(sum) / static_cast<float>(p.hidden) + p.eps);
  for (int32_t c = threadIdx.x; c < p.hidden; c += kThreads) {
    out[c] = FromFloat<T>(in[c] * scale * p.weight[c]);
  }
}

}  // namespace

void RmsNorm(const RmsNormParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  const bool vectors = p.hidden % 4 == 0 && p.hidden <= kMaxVectors * 4 * kThreads;
  const bool f32 = p.out_dtype == DType::kF32;
  if (vectors) {
    Launch(f32 ? RmsNormVectors<float> : RmsNormVectors<Bf16>, p.n, kThreads, 0, stream, p);
  } else {
    Launch(f32 ? RmsNormAny<float> : RmsNormAny<Bf16>, p.n, kThreads, 0, stream, p);
  }
}

}  // namespace spin::cuda
