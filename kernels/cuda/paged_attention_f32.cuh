// Paged attention in float32, for tests of numerics: simple, not fast. Included by paged_attention.cu alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kF32Warps = 8;
constexpr int kF32Threads = kF32Warps * kWarp;

// A warp's running softmax in float32; a lane has every 32nd dimension.
template <int kDims>
struct FloatState {
  float sum[kDims] = {};
  float max = -INFINITY, weight = 0;

  __device__ void Add(float score, const float (&value)[kDims]) {
    const float now = fmaxf(max, score);
    const float rescale = expf(max - now), e = expf(score - now);
    max = now;
    weight = weight * rescale + e;
#pragma unroll
    for (int c = 0; c < kDims; ++c) sum[c] = fmaf(e, value[c], sum[c] * rescale);
  }
};

// float32, for tests of numerics: a CTA a query head, its warps taking tokens in turn, nothing past the end read.
// `halves` [place][head][D + 2]: sums, maximum, weight of what is ready.
template <int D>
__global__ void AttendF32(const PagedAttentionParams p, float scale, float* halves) {
  constexpr int kDims = D / kWarp;
  __shared__ float sums[kF32Warps][D];
  __shared__ float maxima[kF32Warps], weights[kF32Warps];
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const int place = blockIdx.z, head = blockIdx.y;
  if (place >= NumRows(p.decode)) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t stream = int64_t{place} * g.num_kv_heads + head / g.group();
  const int32_t* list = p.page_list + stream * p.max_list;
  const int pages = p.list_len[stream];
  SPIN_DEVICE_CHECK(0 < pages && pages <= p.max_list);
  const int all_tokens =
      (pages - 1) * g.page_tokens + p.decode.position[p.decode.rows[place]] % g.page_tokens + 1;
  const int ready = p.part == ListPart::kAll ? all_tokens : p.ready_tokens[stream];
  SPIN_DEVICE_CHECK(0 <= ready && ready <= all_tokens);
  const bool fetched = p.part == ListPart::kFetched;
  if (fetched && ready == all_tokens) return;  // finished by kReady
  if (fetched) list += CeilDiv(ready, g.page_tokens);
  const int num_tokens = fetched ? all_tokens - ready : ready;
  float* half = halves + (int64_t{place} * g.num_q_heads + head) * (D + 2);
  const float* q = static_cast<const float*>(p.qkv) + place * QkvWidth(g) + int64_t{head} * D;
  FloatState<kDims> state;
  for (int token = warp; token < num_tokens; token += kF32Warps) {
    const auto* page =
        reinterpret_cast<const float*>(PageAt(p.tables.slots, g, list[token / g.page_tokens]));
    float dot = 0, value[kDims];
#pragma unroll
    for (int c = 0; c < kDims; ++c) {
      const int dim = c * kWarp + lane;
      dot = fmaf(q[dim], page[g.KeyOffset(token % g.page_tokens) + dim], dot);
      value[c] = page[g.ValueOffset(token % g.page_tokens) + dim];
    }
    state.Add(WarpSum(dot) * scale, value);
  }
#pragma unroll
  for (int c = 0; c < kDims; ++c) sums[warp][c * kWarp + lane] = state.sum[c];
  if (lane == 0) {
    maxima[warp] = state.max;
    weights[warp] = state.weight;
  }
  __syncthreads();
  if (threadIdx.x >= D) return;
  float max = fetched ? half[D] : -INFINITY;
  for (int w = 0; w < kF32Warps; ++w) max = fmaxf(max, maxima[w]);
  const auto share = [max](float of) { return of == -INFINITY ? 0 : expf(of - max); };
  float total = fetched ? share(half[D]) * half[D + 1] : 0;
  float out = fetched ? share(half[D]) * half[threadIdx.x] : 0;
  for (int w = 0; w < kF32Warps; ++w) {
    total = fmaf(share(maxima[w]), weights[w], total);
    out = fmaf(share(maxima[w]), sums[w][threadIdx.x], out);
  }
  if (num_tokens < all_tokens && !fetched) {
    half[threadIdx.x] = out;
    if (threadIdx.x == 0) half[D] = max;
    if (threadIdx.x == 0) half[D + 1] = total;
    return;
  }
  static_cast<float*>(p.out)[(int64_t{place} * g.num_q_heads + head) * D + threadIdx.x] =
      out / total;
}

template <int D>
void LaunchF32(const PagedAttentionParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  static_assert(kMaxHalvedHeads * (D + 2) <= kPartialFloats);
  const dim3 grid(1, static_cast<unsigned>(g.num_q_heads),
                  static_cast<unsigned>(p.decode.max_batch));
  Launch(AttendF32<D>, grid, kF32Threads, 0, stream, p, 1 / std::sqrt(static_cast<float>(D)),
         scratch.partials);
}

}  // namespace
}  // namespace spin::cuda
