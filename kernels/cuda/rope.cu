// Per-head RMSNorm of q and k (Qwen3) and rotary embedding in half-split order, in place in the fused rows.
//
// A lane holds a piece of 16 bytes of a head's first half and its partner in the second, so that a rotation stays in
// the lane; the lanes that make a head sum up its norm. A warp takes two rounds of heads of one token: both are loaded
// before anything is waited for, and share the lane's cosines and sines. Floor: q and k read and written once, 4 bytes
// an element in bf16.
#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kRounds = 2;  // of heads, a warp

// Lanes that share a head.
template <typename T, int kDim>
constexpr int kHeadLanes = kDim / 2 / kPieceElements<T>;

template <int kCount>
__device__ __forceinline__ void LoadFloats(const float* from, float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
  }
}

// Both pieces of a lane, scaled to a root mean square of 1 over the head and by the norm's weight. All lanes of the
// warp; `norm` is null where there is none.
template <int kDim, int kPiece>
__device__ __forceinline__ void Normalise(const float* norm, float eps, float (&low)[kPiece],
                                          float (&high)[kPiece]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPiece; ++i) sum += low[i] * low[i] + high[i] * high[i];
#pragma unroll
  for (int offset = kDim / kPiece / 4; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, offset);
  }
  if (norm == nullptr) return;
  const float scale = rsqrtf(sum / kDim + eps);
  float weight[kPiece];
  LoadFloats(norm, weight);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) low[i] *= scale * weight[i];
  LoadFloats(norm + kDim / 2, weight);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) high[i] *= scale * weight[i];
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kWarps* kWarp, 3)
    RopeKernel(const __grid_constant__ RopeParams p, int32_t warps_a_token) {
  constexpr int kPiece = kPieceElements<T>;
  constexpr int kHalf = kDim / 2;
  constexpr int kLanes = kHeadLanes<T, kDim>;
  constexpr int kHeads = kWarp / kLanes;  // of a round
  const int32_t lane = static_cast<int32_t>(threadIdx.x % kWarp);
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const auto token = static_cast<int32_t>(warp / warps_a_token);
  const int32_t first_head =
      static_cast<int32_t>(warp % warps_a_token) * kRounds * kHeads + lane / kLanes;
  const int32_t heads = p.num_q_heads + p.num_kv_heads;
  const int32_t offset = lane % kLanes * kPiece;
  WaitForPredecessors();
  AllowSuccessors();
  if (token >= p.n) return;
  T* row = static_cast<T*>(p.qkv) + token * (int64_t{heads} + p.num_kv_heads) * kDim + offset;
  uint4 pieces[kRounds][2] = {};
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int32_t head = first_head + r * kHeads;
    if (head >= heads) continue;
    pieces[r][0] = *reinterpret_cast<const uint4*>(row + int64_t{head} * kDim);
    pieces[r][1] = *reinterpret_cast<const uint4*>(row + int64_t{head} * kDim + kHalf);
  }
  int32_t position;
  if (p.positions != nullptr) {
    position = p.positions[token];
  } else {
    if (token >= *p.decode.num_rows) return;
    position = p.decode.position[p.decode.rows[token]];
  }
  float cosine[kPiece], sine[kPiece];
  const float* table = p.table + int64_t{position} * kDim + offset;
  LoadFloats(table, cosine);
  LoadFloats(table + kHalf, sine);
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int32_t head = first_head + r * kHeads;
    float low[kPiece], high[kPiece], rotated[kPiece];
    UnpackPiece<T>(pieces[r][0], low);
    UnpackPiece<T>(pieces[r][1], high);
    const float* norm = head < p.num_q_heads ? p.q_norm : p.k_norm;
    Normalise<kDim>(norm == nullptr ? nullptr : norm + offset, p.eps, low, high);
    if (head >= heads) continue;
    T* x = row + int64_t{head} * kDim;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) rotated[i] = low[i] * cosine[i] - high[i] * sine[i];
    *reinterpret_cast<uint4*>(x) = RoundToPiece<T>(rotated);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) rotated[i] = high[i] * cosine[i] + low[i] * sine[i];
    *reinterpret_cast<uint4*>(x + kHalf) = RoundToPiece<T>(rotated);
  }
}

template <typename T, int kDim>
void LaunchRope(const RopeParams& p, cudaStream_t stream) {
  constexpr int kHeads = kRounds * kWarp / kHeadLanes<T, kDim>;  // a warp
  const int32_t warps_a_token = CeilDiv(p.num_q_heads + p.num_kv_heads, kHeads);
  const auto blocks = static_cast<unsigned>(CeilDiv<int64_t>(int64_t{p.n} * warps_a_token, kWarps));
  Launch(RopeKernel<T, kDim>, blocks, kWarps * kWarp, 0, stream, p, warps_a_token);
}

template <typename T>
void LaunchRope(const RopeParams& p, cudaStream_t stream) {
  SPIN_CHECK(p.head_dim == 64 || p.head_dim == 128);
  p.head_dim == 64 ? LaunchRope<T, 64>(p, stream) : LaunchRope<T, 128>(p, stream);
}

}  // namespace

void Rope(const RopeParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  p.dtype == DType::kF32 ? LaunchRope<float>(p, stream) : LaunchRope<Bf16>(p, stream);
}

}  // namespace spin::cuda
