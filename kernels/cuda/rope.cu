// Per-head RMSNorm of q and k (Qwen3) and rotary embedding in half-split order, in place in the fused rows.
//
// A warp a (token, head): a lane holds the pairs (i, i + d/2) for i = lane * d/64 ..., so that a rotation stays in the
// lane; the norm is one warp sum. Floor: q and k read and written once, 4 bytes an element in bf16.
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;

// kPairs = d / 64: pairs a lane holds.
template <typename T, int kPairs>
__device__ __forceinline__ void Load(const T* from, float (&x)[kPairs]) {
  if constexpr (sizeof(T) == 2 && kPairs == 2) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
    x[0] = LowBf16(word);
    x[1] = HighBf16(word);
  } else {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) x[i] = ToFloat(from[i]);
  }
}

template <typename T, int kPairs>
__device__ __forceinline__ void Store(T* to, const float (&x)[kPairs]) {
  if constexpr (sizeof(T) == 2 && kPairs == 2) {
    *reinterpret_cast<uint32_t*>(to) = PackBf16(x[0], x[1]);
  } else {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) to[i] = FromFloat<T>(x[i]);
  }
}

template <typename T, int kPairs>
__global__ void __launch_bounds__(kWarps* kWarp) RopeKernel(RopeParams p) {
  constexpr int kHalf = 32 * kPairs;  // d / 2
  const int lane = threadIdx.x % kWarp;
  const int heads = p.num_q_heads + p.num_kv_heads;
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  WaitForPredecessors();
  AllowSuccessors();
  if (item >= int64_t{p.n} * heads) return;
  const auto token = static_cast<int32_t>(item / heads);
  const auto head = static_cast<int32_t>(item % heads);
  int32_t position;
  if (p.positions != nullptr) {
    position = p.positions[token];
  } else {
    if (token >= *p.decode.num_rows) return;
    position = p.decode.position[p.decode.rows[token]];
  }
  const int64_t width = int64_t{p.num_q_heads + 2 * p.num_kv_heads} * 2 * kHalf;
  T* x = static_cast<T*>(p.qkv) + token * width + int64_t{head} * 2 * kHalf + lane * kPairs;
  float low[kPairs], high[kPairs];
  Load<T, kPairs>(x, low);
  Load<T, kPairs>(x + kHalf, high);
  const float* norm = head < p.num_q_heads ? p.q_norm : p.k_norm;
  if (norm != nullptr) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) sum += low[i] * low[i] + high[i] * high[i];
    const float scale = rsqrtf(WarpSum(sum) / (2 * kHalf) + p.eps);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      low[i] *= scale * norm[lane * kPairs + i];
      high[i] *= scale * norm[kHalf + lane * kPairs + i];
    }
  }
  const float* cosines = p.table + int64_t{position} * 2 * kHalf + lane * kPairs;
  float rotated_low[kPairs], rotated_high[kPairs];
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const float cosine = cosines[i], sine = cosines[kHalf + i];
    rotated_low[i] = low[i] * cosine - high[i] * sine;
    rotated_high[i] = high[i] * cosine + low[i] * sine;
  }
  Store<T, kPairs>(x, rotated_low);
  Store<T, kPairs>(x + kHalf, rotated_high);
}

template <typename T>
void LaunchRope(const RopeParams& p, cudaStream_t stream) {
  const int64_t items = int64_t{p.n} * (p.num_q_heads + p.num_kv_heads);
  const auto blocks = static_cast<unsigned>((items + kWarps - 1) / kWarps);
  SPIN_CHECK(p.head_dim == 64 || p.head_dim == 128);
  Launch(p.head_dim == 64 ? RopeKernel<T, 1> : RopeKernel<T, 2>, blocks, kWarps * kWarp, 0, stream,
         p);
}

}  // namespace

void Rope(const RopeParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  p.dtype == DType::kF32 ? LaunchRope<float>(p, stream) : LaunchRope<Bf16>(p, stream);
}

}  // namespace spin::cuda
