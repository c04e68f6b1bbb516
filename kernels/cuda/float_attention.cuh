// Attention in float32 by the warps of a thread block, each with a running softmax of its own: simple, not fast; for
// tests of numerics.
#pragma once

#include <cmath>

#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

constexpr int kF32Warps = 8;
constexpr int kF32Threads = kF32Warps * kWarp;

// A warp's running softmax in float32; a lane has every 32nd dimension.
template <int kDims>
struct FloatState {
  float sum[kDims] = {};
  float max = -INFINITY, weight = 0;

  // A key that stands for `tokens` tokens.
  __device__ void Add(float score, const float (&value)[kDims], float tokens = 1) {
    const float now = fmaxf(max, score);
    const float rescale = expf(max - now), e = tokens * expf(score - now);
    max = now;
    weight = weight * rescale + e;
#pragma unroll
    for (int c = 0; c < kDims; ++c) sum[c] = fmaf(e, value[c], sum[c] * rescale);
  }
};

// What the warps found, in shared memory.
template <int D>
struct FloatStates {
  // This warp's.
  __device__ void Put(const FloatState<D / kWarp>& state) {
    const int warp = static_cast<int>(threadIdx.x / kWarp),
              lane = static_cast<int>(threadIdx.x % kWarp);
#pragma unroll
    for (int c = 0; c < D / kWarp; ++c) sums[warp][c * kWarp + lane] = state.sum[c];
    if (lane == 0) {
      maxima[warp] = state.max;
      weights[warp] = state.weight;
    }
  }
  // The share of a state whose maximum is `of` when the maximum of all is `max`.
  static __device__ float Share(float of, float max) {
    return of == -INFINITY ? 0 : expf(of - max);
  }

  // Adds all warps' of dimension `dim` to what is there, relative to a maximum that may rise.
  __device__ void AddTo(int dim, float& sum, float& max, float& weight) const {
    float now = max;
    for (int w = 0; w < kF32Warps; ++w) now = fmaxf(now, maxima[w]);
    sum *= Share(max, now);
    weight *= Share(max, now);
    for (int w = 0; w < kF32Warps; ++w) {
      weight = fmaf(Share(maxima[w], now), weights[w], weight);
      sum = fmaf(Share(maxima[w], now), sums[w][dim], sum);
    }
    max = now;
  }

  float sums[kF32Warps][D];
  float maxima[kF32Warps], weights[kF32Warps];
};

}  // namespace spin::cuda
