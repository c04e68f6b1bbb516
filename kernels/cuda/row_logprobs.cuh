// Log-probabilities of a row under the model's own distribution: each chunk's maximum, sum of exponentials and best
// tokens, then the row's from those. The twin of Logprobs in kernels/cpu/sample.cc.
//
// The best of a chunk, without sorting: the num-th best of the threads' own maxima bounds them from below, and at most
// num threads hold anything as good, so that at most num * kElements candidates remain.
#pragma once

#include <cstdint>

#include "kernels/cuda/sample_row.cuh"

namespace spin::cuda {

constexpr int kMaxCandidates = kMaxLogprobs * kElements;

struct RawShared {
  uint64_t value[kMaxChunks * kMaxLogprobs];  // maxima of the threads; then the bests of all chunks
  uint64_t candidate[kMaxCandidates];
  uint64_t best[kMaxLogprobs];
  uint32_t num_candidates;
  double sums[kRowWarps];
};
static_assert(kMaxChunks * kMaxLogprobs >= kRowThreads);

__device__ __forceinline__ float LogprobOf(float logit, float max, double log_sum) {
  return static_cast<float>(static_cast<double>(logit) - static_cast<double>(max) - log_sum);
}

// out[r] = the r-th greatest of distinct values, 0 where there are fewer (zeros do not count). One warp.
__device__ inline void WarpTop(const uint64_t* values, int n, int num, uint64_t* out) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  uint64_t last = ~uint64_t{0};
  for (int r = 0; r < num; ++r) {
    uint64_t best = 0;
#pragma unroll 2
    for (int i = lane; i < n; i += kWarp) {
      const uint64_t v = values[i];
      if (v < last && v > best) best = v;
    }
    last = WarpMax64(best);
    if (lane == 0) out[r] = last;
  }
  __syncwarp();
}

// The chunk's best `num` into top[0..num). All threads; shared.value holds their maxima.
__device__ inline void ChunkTop(const float* logits, int32_t vocab, int32_t begin, int num,
                                RawShared& shared, uint64_t* top) {
  if (threadIdx.x == 0) shared.num_candidates = 0;
  __syncthreads();
  if (threadIdx.x < kWarp) WarpTop(shared.value, kRowThreads, num, shared.best);
  __syncthreads();
  const uint64_t least = shared.best[num - 1];
  float x[kElements];
  LoadLogits(logits, vocab, begin, x);  // again, rather than kept in registers
#pragma unroll
  for (int k = 0; k < kElements; ++k) {
    const uint64_t candidate = Candidate(x[k], begin + OffsetOf(k));
    if (candidate < least || IsNan(candidate)) continue;
    shared.candidate[atomicAdd(&shared.num_candidates, 1u)] = candidate;
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    WarpTop(shared.candidate, static_cast<int>(shared.num_candidates), num, top);
  }
  __syncthreads();
}

// A chunk's share of the row's statistics, into part.raw_* and top[0..num_top).
__device__ inline void RawStatistics(const float* logits, int32_t vocab, int32_t begin, int num_top,
                                     RawShared& shared, ChunkPart& part, uint64_t* top) {
  float x[kElements];
  LoadLogits(logits, vocab, begin, x);
  const uint64_t own = BestOf(x, begin);
  shared.value[threadIdx.x] = IsNan(own) ? 0 : own;
  const uint64_t best = BlockMax(own);
  const float max = MaxOf(best);
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kElements; ++k) sum += ExpNonPositive(x[k] - max);
  const double warp_sum = WarpSum(static_cast<double>(sum));
  if (threadIdx.x % kWarp == 0) shared.sums[threadIdx.x / kWarp] = warp_sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (const double s : shared.sums) total += s;
    part.raw_best = best;
    part.raw_sum = total;
  }
  __syncthreads();
  if (num_top > 0) ChunkTop(logits, vocab, begin, num_top, shared, top);
}

// The row's maximum and logarithm of its sum of exponentials from its chunks'; its best tokens into out->top_*. All
// threads of the CTA that arrived last.
__device__ inline void RowStatistics(RowState& state, int32_t chunks, int num_top,
                                     RawShared& shared, SampledToken* out) {
  for (int32_t i = threadIdx.x; i < chunks * num_top; i += kRowThreads) {
    shared.value[i] = __ldcg(reinterpret_cast<const unsigned long long*>(state.top) + i);
  }
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  const auto lane = static_cast<int32_t>(threadIdx.x);
  uint64_t best = 0;
  for (int32_t c = lane; c < chunks; c += kWarp) {
    best =
        max(best,
            uint64_t{__ldcg(reinterpret_cast<const unsigned long long*>(&state.part[c].raw_best))});
  }
  const float row_max = MaxOf(WarpMax64(best));
  double sum = 0;
  for (int32_t c = lane; c < chunks; c += kWarp) {
    const float chunk_max =
        MaxOf(__ldcg(reinterpret_cast<const unsigned long long*>(&state.part[c].raw_best)));
    sum +=
        __ldcg(&state.part[c].raw_sum) * static_cast<double>(ExpNonPositive(chunk_max - row_max));
  }
  const double log_sum = log(WarpSum(sum));
  if (num_top > 0) WarpTop(shared.value, chunks * num_top, num_top, shared.best);
  const bool some = lane < num_top && shared.best[lane] != 0;
  if (some) {
    out->top_token[lane] = IndexOf(shared.best[lane]);
    out->top_logprob[lane] = LogprobOf(ValueOf(shared.best[lane]), row_max, log_sum);
  }
  const unsigned found = __ballot_sync(kAllLanes, some);
  if (lane == 0) {
    out->num_top = __popc(found);
    state.raw_max = row_max;
    state.raw_log_sum = log_sum;
  }
}

}  // namespace spin::cuda
