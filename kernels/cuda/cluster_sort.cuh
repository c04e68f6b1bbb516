// Tokens in the order of their clusters, those of a cluster in their own: a stable counting sort by one thread block.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

inline constexpr int32_t kNoCluster = 0xffff;  // of a token that is not sorted

// kWarps warps, each with kSteps * 32 neighbouring tokens: token 32 s + lane of them is lane's in step s.
// `bins` clusters at most, for each of which there is a thread. In shared memory.
template <int kWarps, int kSteps, int kBins>
class ClusterSort {
 public:
  static_assert(kBins <= kWarps * kWarp && kBins % kWarp == 0);
  static_assert(kWarps <= kWarp && kSteps * kWarp * kWarps < kNoCluster);

  // Replaces the clusters of the thread's tokens (kNoCluster: none) by their places among all. Whole block; behind it,
  // for cluster threadIdx.x < kBins, Begin() and Size() are known to its thread.
  __device__ __forceinline__ void Run(int32_t (&token)[kSteps]) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    uint16_t* before = before_[threadIdx.x / kWarp];  // so far, of this warp's tokens
    for (int bin = 2 * lane; bin < kBins; bin += 2 * kWarp) {
      *reinterpret_cast<uint32_t*>(before + bin) = 0;
    }
    __syncwarp();
    int32_t rank[kSteps];  // among the warp's tokens of the cluster
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const bool sorted = token[s] != kNoCluster;
      const unsigned peers = __match_any_sync(kAllLanes, token[s]);
      rank[s] = sorted ? before[token[s]] + __popc(peers & ((1u << lane) - 1)) : 0;
      __syncwarp();
      if (sorted && lane == __ffs(peers) - 1) {
        before[token[s]] = static_cast<uint16_t>(before[token[s]] + __popc(peers));
      }
      __syncwarp();
    }
    __syncthreads();
    ScanBins();
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if (token[s] != kNoCluster) token[s] = begin_[token[s]] + before[token[s]] + rank[s];
    }
  }

  __device__ __forceinline__ int32_t Begin() const {
    return begin_[threadIdx.x];
  }
  __device__ __forceinline__ int32_t Size() const {
    return size_[threadIdx.x];
  }

 private:
  // What each warp counted becomes what the warps before it did; begins from the sizes. Two barriers.
  __device__ __forceinline__ void ScanBins() {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const int bin = static_cast<int>(threadIdx.x);
    int32_t size = 0, upto = 0;
    if (bin < kBins) {
#pragma unroll 8
      for (int w = 0; w < kWarps; ++w) {
        const int32_t of_warp = before_[w][bin];
        before_[w][bin] = static_cast<uint16_t>(size);
        size += of_warp;
      }
      upto = size;
#pragma unroll
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const int32_t below = __shfl_up_sync(kAllLanes, upto, offset);
        if (lane >= offset) upto += below;
      }
      if (lane == kWarp - 1) of_warp_[bin / kWarp] = upto;
    }
    __syncthreads();
    if (bin < kBins) {
      int32_t begin = upto - size;
      for (int w = 0; w < bin / kWarp; ++w) begin += of_warp_[w];
      begin_[bin] = begin;
      size_[bin] = size;
    }
    __syncthreads();
  }

  alignas(4) uint16_t before_[kWarps][kBins];
  int32_t of_warp_[kBins / kWarp];  // tokens of a warp's clusters
  int32_t begin_[kBins], size_[kBins];
};

}  // namespace spin::cuda
