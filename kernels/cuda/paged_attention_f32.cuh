// Paged attention in float32, for tests of numerics: simple, not fast. Included by paged_attention.cu alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/float_attention.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

// float32, for tests of numerics: a CTA a query head, its warps taking tokens in turn, nothing past the end read.
// `halves` [place][head][D + 2]: sums, maximum, weight of what is ready.
template <int D>
__global__ void AttendF32(const PagedAttentionParams p, float scale, float* halves) {
  constexpr int kDims = D / kWarp;
  __shared__ FloatStates<D> states;
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const int place = blockIdx.z, head = blockIdx.y;
  if (place >= NumRows(p.decode)) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t stream = int64_t{place} * g.num_kv_heads + head / g.group();
  const int32_t* list = p.page_list + stream * p.max_list;
  const uint8_t* masks = p.page_mask == nullptr ? nullptr : p.page_mask + stream * p.max_list;
  const int pages = p.list_len[stream];
  SPIN_DEVICE_CHECK(0 < pages && pages <= p.max_list);
  const int all_tokens =
      (pages - 1) * g.page_tokens + p.decode.position[p.decode.rows[place]] % g.page_tokens + 1;
  const int ready = p.part == ListPart::kAll ? all_tokens : p.ready_tokens[stream];
  SPIN_DEVICE_CHECK(0 <= ready && ready <= all_tokens);
  const bool fetched = p.part == ListPart::kFetched;
  if (fetched && ready == all_tokens) return;  // finished by kReady
  const int first_page = fetched ? CeilDiv(ready, g.page_tokens) : 0;
  const int num_tokens = fetched ? all_tokens - ready : ready;
  float* half = halves + (int64_t{place} * g.num_q_heads + head) * (D + 2);
  const float* q = static_cast<const float*>(p.qkv) + place * QkvWidth(g) + int64_t{head} * D;
  FloatState<kDims> state;
  for (int token = warp; token < num_tokens; token += kF32Warps) {
    const int entry = first_page + token / g.page_tokens;
    if (masks != nullptr && (masks[entry] >> token % g.page_tokens & 1) == 0) continue;
    const auto* page = reinterpret_cast<const float*>(PageAt(p.tables.slots, g, list[entry]));
    float dot = 0, value[kDims];
#pragma unroll
    for (int c = 0; c < kDims; ++c) {
      const int dim = c * kWarp + lane;
      dot = fmaf(q[dim], page[g.KeyOffset(token % g.page_tokens) + dim], dot);
      value[c] = page[g.ValueOffset(token % g.page_tokens) + dim];
    }
    state.Add(WarpSum(dot) * scale, value);
  }
  states.Put(state);
  __syncthreads();
  if (threadIdx.x >= D) return;
  const auto dim = static_cast<int>(threadIdx.x);
  float out = fetched ? half[dim] : 0, max = fetched ? half[D] : -INFINITY;
  float total = fetched ? half[D + 1] : 0;
  states.AddTo(dim, out, max, total);
  const int64_t q_head = int64_t{place} * g.num_q_heads + head;
  if (num_tokens < all_tokens && !fetched) {
    half[dim] = out;
    if (dim == 0) half[D] = max;
    if (dim == 0) half[D + 1] = total;
    return;
  }
  if (p.estimate != nullptr) {
    const float* estimate = p.estimate + q_head * (D + 2);
    const float now = fmaxf(max, estimate[D]);
    const float own = FloatStates<D>::Share(max, now);
    const float other = FloatStates<D>::Share(estimate[D], now);
    out = own * out + other * estimate[dim];
    total = own * total + other * estimate[D + 1];
  }
  static_cast<float*>(p.out)[q_head * D + dim] = out / total;
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
