// Causal attention of packed tokens over staging, for every shape and with no need of `segments`: bfloat16 on tensor
// cores (prefill_attention_mma.cuh), float32 on CUDA cores.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <numbers>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_attention_mma.cuh"
#include "kernels/cuda/prefill_runs.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

// ---- float32 -----------------------------------------------------------------------------------------------------

// Tiles of 32 tokens by 32 keys; a row belongs to 8 neighbouring lanes, two rows a thread.
constexpr int kFloatRows = 32;
constexpr int kFloatKeys = 32;
constexpr int kFloatThreads = 128;
constexpr int kLanesOfRow = 8;
constexpr int kRowsOfThread = 2;
constexpr int kKeysOfThread = kFloatKeys / kLanesOfRow;

template <int kDim>
struct FloatTile {
  float q[kFloatRows]
         [kDim + 4];  // rows shifted by 16 bytes: 8 keys side by side without bank conflicts
  float k[kFloatKeys][kDim + 4];
  float v[kFloatKeys][kDim];
  float weights[kFloatRows][kFloatKeys + 4];
};

// `count` rows `pitch` floats apart into shared rows; zeros up to kRows.
template <int kRows, int kDim, int kPitch>
__device__ __forceinline__ void LoadFloatRows(float (&to)[kRows][kPitch], const float* from,
                                              int64_t pitch, int count) {
  constexpr int kChunks = kDim / 4;
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kFloatThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    float4 value = {};
    if (row < count) value = *reinterpret_cast<const float4*>(from + row * pitch + chunk * 4);
    *reinterpret_cast<float4*>(&to[row][chunk * 4]) = value;
  }
}

// q . k as four interleaved partial sums: the accuracy of vector code, and float4 loads.
template <int kDim>
__device__ __forceinline__ void FloatScores(const FloatTile<kDim>& tile, int row, int lane,
                                            float (&scores)[kRowsOfThread][kKeysOfThread]) {
  float4 sums[kRowsOfThread][kKeysOfThread] = {};
#pragma unroll 4
  for (int c = 0; c < kDim; c += 4) {
    float4 q[kRowsOfThread];
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r) {
      q[r] = *reinterpret_cast<const float4*>(&tile.q[row + r][c]);
    }
#pragma unroll
    for (int i = 0; i < kKeysOfThread; ++i) {
      const float4 k = *reinterpret_cast<const float4*>(&tile.k[lane + i * kLanesOfRow][c]);
#pragma unroll
      for (int r = 0; r < kRowsOfThread; ++r) {
        sums[r][i].x = fmaf(q[r].x, k.x, sums[r][i].x);
        sums[r][i].y = fmaf(q[r].y, k.y, sums[r][i].y);
        sums[r][i].z = fmaf(q[r].z, k.z, sums[r][i].z);
        sums[r][i].w = fmaf(q[r].w, k.w, sums[r][i].w);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRowsOfThread; ++r) {
#pragma unroll
    for (int i = 0; i < kKeysOfThread; ++i) {
      scores[r][i] = (sums[r][i].x + sums[r][i].z) + (sums[r][i].y + sums[r][i].w);
    }
  }
}

// out += weights v, keys in order; 4 columns of every 32.
template <int kDim>
__device__ __forceinline__ void AddFloatValues(const FloatTile<kDim>& tile, int row, int lane,
                                               float4 (&out)[kRowsOfThread][kDim / 32]) {
#pragma unroll 4
  for (int key = 0; key < kFloatKeys; ++key) {
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      const float4 v = *reinterpret_cast<const float4*>(&tile.v[key][lane * 4 + i * 32]);
#pragma unroll
      for (int r = 0; r < kRowsOfThread; ++r) {
        const float w = tile.weights[row + r][key];
        out[r][i].x = fmaf(w, v.x, out[r][i].x);
        out[r][i].y = fmaf(w, v.y, out[r][i].y);
        out[r][i].z = fmaf(w, v.z, out[r][i].z);
        out[r][i].w = fmaf(w, v.w, out[r][i].w);
      }
    }
  }
}

// What the rows of a thread have summed.
template <int kDim>
struct FloatState {
  float max[kRowsOfThread] = {-INFINITY, -INFINITY};
  float sum[kRowsOfThread] = {0, 0};  // of this thread's keys only
  float4 out[kRowsOfThread][kDim / 32] = {};
};

// Softmax of one block of scores: weights into shared memory, what was summed before rescaled. Masked scores are
// -infinity; a row without any score yet subtracts 0.
template <int kDim>
__device__ __forceinline__ void FloatSoftmax(const float (&scores)[kRowsOfThread][kKeysOfThread],
                                             float scale, int row, int lane, FloatTile<kDim>& tile,
                                             FloatState<kDim>& state) {
#pragma unroll
  for (int r = 0; r < kRowsOfThread; ++r) {
    float best = state.max[r];
#pragma unroll
    for (int i = 0; i < kKeysOfThread; ++i) best = fmaxf(best, scores[r][i]);
#pragma unroll
    for (int offset = kLanesOfRow / 2; offset > 0; offset /= 2) {
      best = fmaxf(best, __shfl_xor_sync(kAllLanes, best, offset));
    }
    const float finite = best == -INFINITY ? 0.0f : best;
    const float rescale = expf((state.max[r] - finite) * scale);
    state.max[r] = best;
    state.sum[r] *= rescale;
#pragma unroll
    for (int i = 0; i < kKeysOfThread; ++i) {
      const float weight = expf((scores[r][i] - finite) * scale);
      state.sum[r] += weight;
      tile.weights[row + r][lane + i * kLanesOfRow] = weight;
    }
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      state.out[r][i].x *= rescale;
      state.out[r][i].y *= rescale;
      state.out[r][i].z *= rescale;
      state.out[r][i].w *= rescale;
    }
  }
}

// One tile of tokens of one query head; the grid as in AttendMma. Bound by shared-memory reads, at a quarter of the
// machine's float32 rate or so: it serves tests.
template <int kDim>
__global__ void __launch_bounds__(kFloatThreads, 2)
    AttendFloat(const PrefillAttentionParams p, const float scale) {
  extern __shared__ __align__(16) unsigned char float_shared[];
  __shared__ TileTokens<kFloatRows> tokens;
  auto& tile = *reinterpret_cast<FloatTile<kDim>*>(float_shared);
  const KvGeometry& g = p.geometry;
  const int q_heads = g.num_q_heads;
  const int head = static_cast<int>(blockIdx.x) % q_heads;
  const int64_t token_begin =
      (int64_t{gridDim.x} / q_heads - 1 - static_cast<int>(blockIdx.x) / q_heads) * kFloatRows;
  const int count = static_cast<int>(min(int64_t{kFloatRows}, p.n - token_begin));
  const int row = static_cast<int>(threadIdx.x) / kLanesOfRow * kRowsOfThread;
  const int lane = static_cast<int>(threadIdx.x) % kLanesOfRow;
  WaitForPredecessors();

  const float* q = static_cast<const float*>(p.qkv) + token_begin * QkvWidth(g) + head * kDim;
  LoadFloatRows<kFloatRows, kDim>(tile.q, q, QkvWidth(g), count);
  tokens.Load(p, token_begin, count);
  __syncthreads();

  const StagingView staging(p.staging, g);
  const int kv_head = head / g.group();
  FloatState<kDim> state;
  for (int begin = 0; begin < count;) {
    const Run run = FindRun(tokens, begin, count);
    const int num_keys = run.last_key - run.first_key + 1;
    for (int key = 0; key < num_keys; key += kFloatKeys) {
      __syncthreads();  // nobody reads the block before
      LoadFloatRows<kFloatKeys, kDim>(
          tile.k, reinterpret_cast<const float*>(staging.Key(kv_head, run.first_key + key)), kDim,
          num_keys - key);
      LoadFloatRows<kFloatKeys, kDim>(
          tile.v, reinterpret_cast<const float*>(staging.Value(kv_head, run.first_key + key)), kDim,
          num_keys - key);
      __syncthreads();
      float scores[kRowsOfThread][kKeysOfThread];
      FloatScores<kDim>(tile, row, lane, scores);
#pragma unroll
      for (int r = 0; r < kRowsOfThread; ++r) {
        const int last = LastKeyInRun(tokens, run, row + r) - key - lane;
#pragma unroll
        for (int i = 0; i < kKeysOfThread; ++i) {
          if (i * kLanesOfRow > last) scores[r][i] = -INFINITY;
        }
      }
      FloatSoftmax<kDim>(scores, scale, row, lane, tile, state);
      __syncwarp();  // a row's weights stay within its warp
      AddFloatValues<kDim>(tile, row, lane, state.out);
    }
    begin = run.end;
  }
  AllowSuccessors();
#pragma unroll
  for (int r = 0; r < kRowsOfThread; ++r) {
    float sum = state.sum[r];
#pragma unroll
    for (int offset = kLanesOfRow / 2; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    if (row + r >= count) continue;
    float* out =
        static_cast<float*>(p.out) + ((token_begin + row + r) * q_heads + head) * kDim + lane * 4;
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      const float4 o = state.out[r][i];
      *reinterpret_cast<float4*>(out + i * 32) = {o.x / sum, o.y / sum, o.z / sum, o.w / sum};
    }
  }
}

template <int kDim>
void LaunchFloat(const PrefillAttentionParams& p, float scale, cudaStream_t stream) {
  const int tiles = CeilDiv(p.n, kFloatRows);
  Launch(AttendFloat<kDim>, dim3(tiles * p.geometry.num_q_heads), dim3(kFloatThreads),
         sizeof(FloatTile<kDim>), stream, p, scale);
}

// ---- bfloat16 ----------------------------------------------------------------------------------------------------

// Shared memory of a multiprocessor, and what the system takes of it for each CTA.
size_t SharedPerMultiprocessor() {
  static const size_t bytes = [] {
    int device = 0, value = 0;
    SPIN_CUDA_CHECK(cudaGetDevice(&device));
    SPIN_CUDA_CHECK(
        cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
    return static_cast<size_t>(value);
  }();
  return bytes;
}
constexpr size_t kSharedOverhead = 2048;  // the system's 1 KiB, TileTokens

template <class T>
void LaunchTiling(const PrefillAttentionParams& p, float scale_log2, cudaStream_t stream) {
  const int tiles = CeilDiv(p.n, T::kQueries);
  Launch(AttendMma<T>, dim3(tiles * p.geometry.num_q_heads), dim3(T::kThreads), T::kSharedBytes,
         stream, p, scale_log2);
}

// A ring of four where two CTAs of it fit on a multiprocessor, as with d 64 they always do, else of two.
template <int kDim, int kRowBlocks>
void LaunchRing(const PrefillAttentionParams& p, float scale_log2, cudaStream_t stream) {
  using Long = MmaTiling<kDim, kRowBlocks, 4>;
  if constexpr (kDim > 64) {
    if (2 * (Long::kSharedBytes + kSharedOverhead) > SharedPerMultiprocessor()) {
      LaunchTiling<MmaTiling<kDim, kRowBlocks, 2>>(p, scale_log2, stream);
      return;
    }
  }
  LaunchTiling<Long>(p, scale_log2, stream);
}

// Tiles of 128 tokens share each block of keys twice as well as tiles of 64, which fill the machine where there are few
// tokens. A token's result has the same bits in both.
template <int kDim>
void LaunchMma(const PrefillAttentionParams& p, float scale_log2, cudaStream_t stream) {
  const int large = CeilDiv(p.n, MmaTiling<kDim, 2, 4>::kQueries) * p.geometry.num_q_heads;
  if (large > Traits().num_sms) {
    LaunchRing<kDim, 2>(p, scale_log2, stream);
  } else {
    LaunchRing<kDim, 1>(p, scale_log2, stream);
  }
}

}  // namespace

void PrefillAttentionPortable(const PrefillAttentionParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.geometry;
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  if (p.n == 0) return;
  const float scale = 1.0f / std::sqrt(static_cast<float>(g.head_dim));
  if (g.dtype == DType::kF32) {
    (g.head_dim == 64 ? LaunchFloat<64> : LaunchFloat<128>)(p, scale, stream);
  } else {
    (g.head_dim == 64 ? LaunchMma<64> : LaunchMma<128>)(p, scale * std::numbers::log2e_v<float>,
                                                        stream);
  }
}

}  // namespace spin::cuda
