// Work whose amount only the device knows: items (streams, slices) with a count of units each. The units of all items
// are numbered through in the items' order, so that any number of warps share them evenly, whatever the counts are.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

// In shared memory; one a thread block, whose threads call Build together. Every block of a grid that builds from the
// same counts numbers the units alike.
template <int kThreads, int kPerThread>
class FlatWork {
 public:
  static constexpr int32_t kItems = kThreads * kPerThread;  // of one Build at most; more take turns
  static_assert((kItems & (kItems - 1)) == 0, "Find halves it");

  // Numbers the units of items 0 .. num_items - 1; count(i) >= 0 gives those of item i. Returns how many there are in
  // all: the same in every thread. What a Build before it made is gone.
  template <typename Count>
  __device__ int32_t Build(int32_t num_items, Count count) {
    int32_t counts[kPerThread];
    int32_t mine = 0;
#pragma unroll
    for (int q = 0; q < kPerThread; ++q) {
      const int32_t item = static_cast<int32_t>(threadIdx.x) * kPerThread + q;
      counts[q] = item < num_items ? count(item) : 0;
      mine += counts[q];
    }
    // Nothing to do is common and ends here. The barrier also ends the reading of the Build before.
    if (__syncthreads_or(mine != 0) == 0) return 0;

    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    int32_t inclusive = mine;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int32_t below = __shfl_up_sync(kAllLanes, inclusive, offset);
      if (lane >= offset) inclusive += below;
    }
    if (lane == kWarp - 1) warp_totals_[warp] = inclusive;
    __syncthreads();
    int32_t at = inclusive - mine, total = 0;
#pragma unroll
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) at += warp_totals_[w];
      total += warp_totals_[w];
    }
#pragma unroll
    for (int q = 0; q < kPerThread; ++q) {
      first_[threadIdx.x * kPerThread + q] = at;
      at += counts[q];
    }
    __syncthreads();
    return total;
  }

  // The item of a unit, 0 <= unit < the total: the last whose first unit is not behind it (items without units begin
  // where the next one does, or at the end).
  __device__ int32_t Find(int32_t unit) const {
    int32_t item = 0;
#pragma unroll
    for (int32_t step = kItems / 2; step > 0; step /= 2) {
      if (first_[item + step] <= unit) item += step;
    }
    return item;
  }
  __device__ int32_t First(int32_t item) const {
    return first_[item];
  }

 private:
  int32_t first_[kItems];  // units before the item's
  int32_t warp_totals_[kThreads / kWarp];
};

}  // namespace spin::cuda
