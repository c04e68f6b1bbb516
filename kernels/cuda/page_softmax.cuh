// From the logits of a stream's pages to their scores: softmax over the pages for each query head, then the group's
// maximum or sum. Whoever scores a tile of 16 pages leaves its logits and, for each query head, (maximum, sum of
// exponentials); a kernel behind merges those in a fixed order and turns logits into scores. Nothing of that depends on
// how a stream was split: a row's scores are the same bits in every batch.
#pragma once

#include <cstdint>

#include "common/math.h"
#include "kernels/cuda/numeric.cuh"
#include "kernels/params.h"

namespace spin::cuda::page_softmax {

constexpr int kWarps = 8;  // of a CTA
constexpr int kThreads = kWarps * kWarp;
constexpr int kTilePages = 16;            // what a warp scores at once
constexpr int kMaxGroup = kWarps;         // query heads a KV head: each has a warp
constexpr float kLeastExponent = -86.6f;  // exp = 2^-125; less weighs nothing

__device__ __forceinline__ float MinusInfinity() {
  return __int_as_float(0xff800000);
}

// exp(logit - max); 0 for NaN.
__device__ __forceinline__ float Weight(float logit, float max) {
  const float exponent = logit - max;
  return exponent > kLeastExponent ? __expf(exponent) : 0.0f;
}

// A stream of one batch place and KV head: what is known of it in global memory. Logits are of the whole batch, tiles
// of the places from `first_place` on.
struct Stream {
  Stream() = default;
  __device__ Stream(const KvGeometry& g, float* all_logits, float* all_tiles, int32_t first_place,
                    int32_t place, int32_t head, int32_t pages_of)
      : group(g.group()), pages(pages_of), stride(g.max_pages()) {
    const int32_t first_q_head = head * group;
    logits = all_logits + (int64_t{place} * g.num_q_heads + first_q_head) * stride;
    tile_stride = CeilDiv(stride, kTilePages);
    tiles = reinterpret_cast<float2*>(all_tiles) +
            (int64_t{place - first_place} * g.num_q_heads + first_q_head) * tile_stride;
  }

  int32_t group;
  int32_t pages;        // that are scored
  int32_t stride;       // of logits, from one query head to the next; likewise
  int32_t tile_stride;  // of tiles
  float* logits;        // [group][stride]
  float2* tiles;        // [group][tile_stride]: maximum, sum of exponentials
};

// Of a CTA that turns logits into scores, in shared memory.
struct Merge {
  float2 part[kWarps];                           // (maximum, sum) of a warp's tiles
  float max_of[kMaxGroup], scale_of[kMaxGroup];  // of each query head: maximum, inverse sum
};

// Logits and (maximum, sum) of the tile of pages page.. from what Queries::Score left.
__device__ __forceinline__ void FinishTile(const Stream& stream, int32_t page, float scale,
                                           float (&c)[4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int32_t low = page + lane / 4, high = low + 8;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int head = lane % 4 * 2 + i;
    const bool used = head < stream.group;
    float* logits = stream.logits + int64_t{head} * stream.stride;
    float a = MinusInfinity(), b = MinusInfinity();  // what absent pages weigh
    if (low < stream.pages) {
      a = c[i] * scale;
      if (used) logits[low] = a;
    }
    if (high < stream.pages) {
      b = c[i + 2] * scale;
      if (used) logits[high] = b;
    }
    float max = fmaxf(fmaxf(MinusInfinity(), a), b);  // never NaN
#pragma unroll
    for (int offset = 4; offset < kWarp; offset *= 2) {
      max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, offset));
    }
    float sum = Weight(a, max) + Weight(b, max);
#pragma unroll
    for (int offset = 4; offset < kWarp; offset *= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    if (lane < 4 && used) {
      stream.tiles[int64_t{head} * stream.tile_stride + page / kTilePages] = {max, sum};
    }
  }
}

// Maximum and inverse sum of each query head over all pages. The heads share the warps; tiles in an order that the
// stream alone decides. All threads together.
__device__ __forceinline__ void MergeTiles(const Stream& stream, Merge& merge) {
  constexpr int kAtOnce = 8;                // tiles a lane, in one way to memory
  const int warps = kWarps / stream.group;  // a head
  const int warp = static_cast<int>(threadIdx.x / kWarp), lane = threadIdx.x % kWarp;
  const int head = warp / warps;
  const int32_t count = CeilDiv(stream.pages, kTilePages);
  if (head < stream.group) {
    const float2* tiles = stream.tiles + int64_t{head} * stream.tile_stride;
    const int32_t apart = warps * kWarp;
    float own = MinusInfinity(), sum = 0;
    for (int32_t at = warp % warps * kWarp + lane; at < count; at += kAtOnce * apart) {
      float2 tile[kAtOnce];
      float larger = own;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const bool there = at + i * apart < count;
        tile[i] = there ? __ldcg(tiles + at + i * apart) : float2{MinusInfinity(), 0};
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) larger = fmaxf(larger, tile[i].x);
      sum *= Weight(own, larger);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) sum += tile[i].y * Weight(tile[i].x, larger);
      own = larger;
    }
    const float max = WarpMax(own);
    sum = WarpSum(sum * Weight(own, max));
    if (lane == 0) merge.part[warp] = {max, sum};
  }
  __syncthreads();
  if (const int h = static_cast<int>(threadIdx.x); h < stream.group) {
    const float2* parts = merge.part + h * warps;
    float max = MinusInfinity(), sum = 0;
    for (int i = 0; i < warps; ++i) max = fmaxf(max, parts[i].x);
    for (int i = 0; i < warps; ++i) sum += parts[i].y * Weight(parts[i].x, max);
    merge.max_of[h] = max;
    merge.scale_of[h] = 1.0f / sum;
  }
  __syncthreads();
}

// Takes four logits of query head `head` into the scores of their pages. The order of heads and the comparisons are
// those of the CPU, so that NaN goes the same way: it weighs nothing, and marks an outlier where the summary is a mean.
// A cluster without tokens keeps its -infinity.
template <SummaryKind kKind>
__device__ __forceinline__ void AddHead(const float4& logits, int head, bool sum,
                                        const Merge& merge, float (&score)[4]) {
  const float of_page[4] = {logits.x, logits.y, logits.z, logits.w};
  const float max = merge.max_of[head], scale = merge.scale_of[head];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool empty = kKind == SummaryKind::kClusters && of_page[i] == MinusInfinity();
    if (head == 0) {
      const bool outlier = kKind == SummaryKind::kMean && isnan(of_page[i]);
      score[i] = outlier ? __int_as_float(0x7f800000) : empty ? MinusInfinity() : 0.0f;
    }
    if (empty) continue;
    const float share = Weight(of_page[i], max) * scale;
    if (sum) {
      score[i] += share > 0 ? share : 0.0f;
    } else if (share > score[i]) {
      score[i] = share;
    }
  }
}

// Scores of pages page .. page + 3, as far as the stream has them.
__device__ __forceinline__ void StoreScores(float* scores, int32_t page, int32_t pages,
                                            const float (&score)[4]) {
  if (page + 4 <= pages) {
    *reinterpret_cast<float4*>(scores + page) = {score[0], score[1], score[2], score[3]};
    return;
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (page + i < pages) scores[page + i] = score[i];
  }
}

// Logits of four neighbouring pages, of kAtOnce query heads from first_head on; in flight together.
struct Logits {
  static constexpr int kAtOnce = 4;

  __device__ __forceinline__ void Load(const Stream& stream, int32_t first_head, int32_t page) {
    if (page >= stream.pages) return;
#pragma unroll
    for (int h = 0; h < kAtOnce; ++h) {
      if (first_head + h >= stream.group) return;
      of[h] = __ldcg(reinterpret_cast<const float4*>(
          stream.logits + int64_t{first_head + h} * stream.stride + page));
    }
  }

  float4 of[kAtOnce];
};

// Scores of pages page .. page + 3, of whose logits the first are loaded. REQUIRES: merged tiles.
template <SummaryKind kKind>
__device__ __forceinline__ void WriteScores(const Stream& stream, int32_t page, Logits& logits,
                                            bool sum, const Merge& merge, float* scores) {
  float score[4];
  for (int32_t first = 0; first < stream.group; first += Logits::kAtOnce) {
    if (first > 0) logits.Load(stream, first, page);
#pragma unroll
    for (int h = 0; h < Logits::kAtOnce; ++h) {
      if (first + h >= stream.group) break;
      AddHead<kKind>(logits.of[h], first + h, sum, merge, score);
    }
  }
  StoreScores(scores, page, stream.pages, score);
}

}  // namespace spin::cuda::page_softmax
