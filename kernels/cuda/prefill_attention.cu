// Causal attention of packed prompt tokens over staging, portable (sm_80 on): tiles of 128 queries of one head against
// tiles of 64 keys, mma.sync m16n8k16, double-buffered cp.async (FlashAttention-2, arXiv 2307.08691).
//
// Four warps of 32 queries each: every key and value fragment that a warp reads from shared memory serves two products,
// which keeps shared memory (128 bytes a clock) below the tensor cores' time. Two blocks an SM. Late query tiles, which
// see most keys, are scheduled first; the heads of a group run side by side and share keys in the L2.
#include <cmath>

#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/prefill_attention_mma.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kQueries = 128;  // a block
constexpr int kKeys = 64;      // a tile
constexpr int kRows = 4;       // query rows that a lane has scores of

template <int D>
constexpr size_t kSharedBytes = (kQueries + 4 * kKeys) * D * sizeof(Bf16);

// The keys that the block's queries attend to, over all of them.
struct KeyRange {
  int32_t begin_min, begin_max, end_min, end_max;  // end: the last key
};

__device__ KeyRange FindRange(const PrefillAttentionParams& p, int32_t first, int32_t count) {
  __shared__ KeyRange shared[kWarps];
  const int32_t i = first + min(static_cast<int32_t>(threadIdx.x), count - 1);
  KeyRange r = {p.kv_begin[i], p.kv_begin[i], p.kv_index[i], p.kv_index[i]};
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    r.begin_min = min(r.begin_min, __shfl_xor_sync(kAllLanes, r.begin_min, offset));
    r.begin_max = max(r.begin_max, __shfl_xor_sync(kAllLanes, r.begin_max, offset));
    r.end_min = min(r.end_min, __shfl_xor_sync(kAllLanes, r.end_min, offset));
    r.end_max = max(r.end_max, __shfl_xor_sync(kAllLanes, r.end_max, offset));
  }
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = r;
  __syncthreads();
  r = shared[0];
  for (int w = 1; w < kWarps; ++w) {
    r.begin_min = min(r.begin_min, shared[w].begin_min);
    r.begin_max = max(r.begin_max, shared[w].begin_max);
    r.end_min = min(r.end_min, shared[w].end_min);
    r.end_max = max(r.end_max, shared[w].end_max);
  }
  return r;
}

// One block's work; a lane's registers.
template <int D>
struct Block {
  Bf16* shared;  // queries, then keys and values of each stage
  float out[2][D / 8][4] = {};
  float max[kRows], weight[kRows];
  int32_t begin[kRows], end[kRows];  // keys of the lane's queries
  float scale;                       // of scores, for exp2

  __device__ __forceinline__ SharedTile<D> Queries() const { return {shared}; }
  __device__ __forceinline__ SharedTile<D> Keys(int stage) const {
    return {shared + (kQueries + 2 * stage * kKeys) * D};
  }
  __device__ __forceinline__ SharedTile<D> Values(int stage) const {
    return {shared + (kQueries + (2 * stage + 1) * kKeys) * D};
  }

  __device__ void LoadQueries(const PrefillAttentionParams& p, int32_t first, int32_t head) {
    const int64_t width = QkvWidth(p.geometry);
    const Bf16* from = static_cast<const Bf16*>(p.qkv) + int64_t{head} * D;
    for (int i = threadIdx.x; i < kQueries * SharedTile<D>::kChunks; i += kThreads) {
      const int row = i / SharedTile<D>::kChunks, chunk = i % SharedTile<D>::kChunks;
      const bool valid = first + row < p.n;
      CopyAsync(Queries().At(row, chunk), from + (valid ? first + row : 0) * width + chunk * 8,
                valid);
    }
  }

  // Keys and values of tokens [at, at + kKeys); those behind `last` are zeros.
  __device__ void LoadKeys(const char* keys, const char* values, int32_t at, int32_t last,
                           int stage) {
    for (int i = threadIdx.x; i < kKeys * SharedTile<D>::kChunks; i += kThreads) {
      const int row = i / SharedTile<D>::kChunks, chunk = i % SharedTile<D>::kChunks;
      const bool valid = at + row <= last;
      const int64_t offset = (valid ? at + row : at) * int64_t{2 * D} + chunk * 16;
      CopyAsync(Keys(stage).At(row, chunk), keys + offset, valid);
      CopyAsync(Values(stage).At(row, chunk), values + offset, valid);
    }
    CommitCopies();
  }

  // Between packed sequences lie tokens that nobody wrote. Their scores are masked, but zero times NaN is NaN.
  __device__ void ClearNotFinite(int stage) {
    for (int i = threadIdx.x; i < kKeys * SharedTile<D>::kChunks; i += kThreads) {
      uint4* chunk = Values(stage).Chunk(i / SharedTile<D>::kChunks, i % SharedTile<D>::kChunks);
      uint32_t* words = reinterpret_cast<uint32_t*>(chunk);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if ((words[w] & 0x7f80u) == 0x7f80u) words[w] &= 0xffff0000u;
        if ((words[w] & 0x7f800000u) == 0x7f800000u) words[w] &= 0x0000ffffu;
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ void Scores(float (&s)[2][kKeys / 8][4], int warp, int lane,
                                         int stage) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
    }
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        LoadMatrices(a[m], Queries().At(warp * 32 + m * 16 + lane % 16, step * 2 + lane / 16));
      }
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];
        LoadMatrices(b, Keys(stage).At(n * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          MmaTile(s[m][2 * n], a[m], b[0], b[1]);
          MmaTile(s[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void Mask(float (&s)[2][kKeys / 8][4], int32_t at, int lane) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int32_t key = at + n * 8 + lane % 4 * 2 + j % 2;
          const int row = 2 * m + j / 2;
          if (key < begin[row] || key > end[row]) s[m][n][j] = -INFINITY;
        }
      }
    }
  }

  // Scores become weights relative to the new maxima; what was summed follows.
  __device__ __forceinline__ void Softmax(float (&s)[2][kKeys / 8][4]) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const int m = row / 2, j = row % 2 * 2;
      float now = -INFINITY;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) now = fmaxf(now, fmaxf(s[m][n][j], s[m][n][j + 1]));
      now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, 1));
      now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, 2));
      now = fmaxf(max[row], now * scale);
      const float base = now == -INFINITY ? 0.0f : now;  // no key yet
      const float rescale = exp2f(max[row] - base);
      max[row] = now;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        s[m][n][j] = exp2f(fmaf(s[m][n][j], scale, -base));
        s[m][n][j + 1] = exp2f(fmaf(s[m][n][j + 1], scale, -base));
        sum += s[m][n][j] + s[m][n][j + 1];
      }
      weight[row] = weight[row] * rescale + sum;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        out[m][n][j] *= rescale;
        out[m][n][j + 1] *= rescale;
      }
    }
  }

  __device__ __forceinline__ void AddValues(const float (&s)[2][kKeys / 8][4], int lane,
                                            int stage) {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const float(&low)[4] = s[m][2 * step];
        const float(&high)[4] = s[m][2 * step + 1];
        a[m][0] = PackBf16(low[0], low[1]);
        a[m][1] = PackBf16(low[2], low[3]);
        a[m][2] = PackBf16(high[0], high[1]);
        a[m][3] = PackBf16(high[2], high[3]);
      }
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        LoadMatricesTransposed(b, Values(stage).At(step * 16 + lane % 16, n * 2 + lane / 16));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          MmaTile(out[m][2 * n], a[m], b[0], b[1]);
          MmaTile(out[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ void Write(const PrefillAttentionParams& p, int32_t first, int32_t head, int lane) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const int m = row / 2, j = row % 2 * 2;
      float total = weight[row];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const int32_t token = first + m * 16 + lane / 4 + row % 2 * 8;
      if (token >= p.n) continue;
      const float inverse = 1.0f / total;
      Bf16* to = static_cast<Bf16*>(p.out) + (int64_t{token} * p.geometry.num_q_heads + head) * D +
                 lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        *reinterpret_cast<uint32_t*>(to + n * 8) =
            PackBf16(out[m][n][j] * inverse, out[m][n][j + 1] * inverse);
      }
    }
  }
};

template <int D>
__global__ void __launch_bounds__(kThreads, 2)
    AttendBf16(const __grid_constant__ PrefillAttentionParams p, float scale) {
  extern __shared__ __align__(128) unsigned char dynamic[];
  const KvGeometry& g = p.geometry;
  const int32_t num_tiles = (p.n + kQueries - 1) / kQueries;
  const auto head = static_cast<int32_t>(blockIdx.x % g.num_q_heads);
  const int32_t first =
      (num_tiles - 1 - static_cast<int32_t>(blockIdx.x / g.num_q_heads)) * kQueries;
  const int32_t count = min(kQueries, p.n - first);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  Block<D> block;
  block.scale = scale;
  block.shared = reinterpret_cast<Bf16*>(dynamic);
  WaitForPredecessors();
  AllowSuccessors();
  block.LoadQueries(p, first, head);
  const KeyRange range = FindRange(p, first, count);
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int32_t query = warp * 32 + row / 2 * 16 + lane / 4 + row % 2 * 8;
    const bool valid = query < count;
    block.begin[row] = valid ? p.kv_begin[first + query] : 0;
    block.end[row] = valid ? p.kv_index[first + query] : -1;
    block.max[row] = -INFINITY;
    block.weight[row] = 0;
  }
  const StagingView staging(p.staging, g);
  const char* keys = staging.Key(head / g.group(), 0);
  const char* values = staging.Value(head / g.group(), 0);
  const int32_t tiles = (range.end_max - range.begin_min) / kKeys + 1;
  block.LoadKeys(keys, values, range.begin_min, range.end_max, 0);
  for (int32_t tile = 0; tile < tiles; ++tile) {
    const int32_t at = range.begin_min + tile * kKeys;
    const int stage = tile % 2;
    WaitCopies<0>();
    __syncthreads();
    if (tile + 1 < tiles) block.LoadKeys(keys, values, at + kKeys, range.end_max, stage ^ 1);
    if (range.begin_max != range.begin_min) block.ClearNotFinite(stage);
    float s[2][kKeys / 8][4];
    block.Scores(s, warp, lane, stage);
    if (at < range.begin_max || at + kKeys - 1 > range.end_min || count < kQueries) {
      block.Mask(s, at, lane);
    }
    block.Softmax(s);
    block.AddValues(s, lane, stage);
  }
  block.Write(p, first + warp * 32, head, lane);
}

// float32, for tests of numerics: a warp a (token, head), four keys at a time.
template <int D>
__global__ void __launch_bounds__(kThreads) AttendF32(const PrefillAttentionParams p, float scale) {
  constexpr int kTokens = 4;
  constexpr int kDims = D / kWarp;
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.geometry;
  const int lane = threadIdx.x % kWarp;
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (item >= int64_t{p.n} * g.num_q_heads) return;
  const auto token = static_cast<int32_t>(item / g.num_q_heads);
  const auto head = static_cast<int32_t>(item % g.num_q_heads);
  const float* q = static_cast<const float*>(p.qkv) + token * QkvWidth(g) + int64_t{head} * D;
  const StagingView staging(p.staging, g);
  const auto* keys = reinterpret_cast<const float*>(staging.Key(head / g.group(), 0));
  const auto* values = reinterpret_cast<const float*>(staging.Value(head / g.group(), 0));
  float query[kDims], sum[kDims] = {}, max = -INFINITY, weight = 0;
#pragma unroll
  for (int c = 0; c < kDims; ++c) query[c] = q[c * kWarp + lane] * scale;
  const int32_t last = p.kv_index[token];
  for (int32_t at = p.kv_begin[token]; at <= last; at += kTokens) {
    float score[kTokens], now = max;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float dot = 0;
#pragma unroll
      for (int c = 0; c < kDims; ++c) {
        if (at + t <= last) dot = fmaf(query[c], keys[int64_t{at + t} * D + c * kWarp + lane], dot);
      }
      score[t] = at + t <= last ? WarpSum(dot) : -INFINITY;
      now = fmaxf(now, score[t]);
    }
    const float rescale = expf(max - now);
    max = now;
    weight *= rescale;
#pragma unroll
    for (int c = 0; c < kDims; ++c) sum[c] *= rescale;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (at + t > last) break;
      const float e = expf(score[t] - max);
      weight += e;
#pragma unroll
      for (int c = 0; c < kDims; ++c) {
        sum[c] = fmaf(e, values[int64_t{at + t} * D + c * kWarp + lane], sum[c]);
      }
    }
  }
  float* out = static_cast<float*>(p.out) + (int64_t{token} * g.num_q_heads + head) * D;
#pragma unroll
  for (int c = 0; c < kDims; ++c) out[c * kWarp + lane] = sum[c] / weight;
}

template <int D>
void LaunchFor(const PrefillAttentionParams& p, cudaStream_t stream) {
  const auto heads = static_cast<unsigned>(p.geometry.num_q_heads);
  const float scale = 1 / std::sqrt(static_cast<float>(D));
  if (p.geometry.dtype == DType::kF32) {
    const int64_t items = int64_t{p.n} * heads;
    Launch(AttendF32<D>, static_cast<unsigned>((items + kWarps - 1) / kWarps), kThreads, 0, stream,
           p, scale);
    return;
  }
  const auto tiles = static_cast<unsigned>((p.n + kQueries - 1) / kQueries);
  constexpr float kLog2E = 1.44269504f;
  Launch(AttendBf16<D>, tiles * heads, kThreads, kSharedBytes<D>, stream, p, scale * kLog2E);
}

}  // namespace

void PrefillAttentionPortable(const PrefillAttentionParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.geometry;
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  if (p.n == 0) return;
  g.head_dim == 64 ? LaunchFor<64>(p, stream) : LaunchFor<128>(p, stream);
}

}  // namespace spin::cuda
