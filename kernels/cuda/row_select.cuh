// Finding a place in the descending order of a row's keys without sorting it: three histograms of ever finer digits.
//
// One block a row. Keys are 32-bit integers that order as the values do; 0 takes no part. Each key may have a mass, an
// integer, so that sums do not depend on the order of atomics. Ties are ordered by ascending index.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

constexpr int kRowThreads = 512;
constexpr int kRowWarps = kRowThreads / kWarp;
constexpr int kMaxBuckets = 4096;

// Digits: key >> kHigh (at most 12 bits), then (key >> kLow) & (2^(kHigh - kLow) - 1), then the rest.
template <int kHighShift, int kLowShift>
struct KeyDigits {
  static constexpr int kHigh = kHighShift;
  static constexpr int kLow = kLowShift;
  static_assert(kHigh - kLow <= 12 && kLow <= 12);
};

// In dynamic shared memory.
struct RowHistogram {
  uint64_t mass[kMaxBuckets];
  uint32_t count[kMaxBuckets];
};
struct RowShared {
  RowHistogram first;  // kept: several searches share it
  RowHistogram finer;
  uint64_t warp_mass[kRowWarps];
  uint32_t warp_count[kRowWarps];
  float floats[kRowWarps];
  double doubles[kRowWarps];
  uint32_t bucket;
  uint64_t mass_before;
  uint32_t count_before;
  int32_t index;
};

// A key of the order: all greater ones come before, and of those equal to it `needed` are within.
struct RowCut {
  uint32_t key = 0;
  uint32_t needed = 0;
  uint64_t mass = 0;  // of everything before and `needed` of the key itself
};

// Reductions over the block, the same in every thread, in a fixed order.
__device__ inline float RowMaxOf(float value, RowShared& s) {
  value = WarpMax(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) s.floats[threadIdx.x / kWarp] = value;
  __syncthreads();
  float max = s.floats[0];
  for (int w = 1; w < kRowWarps; ++w) max = fmaxf(max, s.floats[w]);
  return max;
}
template <typename T>
__device__ inline T RowSumOf(T value, T* shared) {
  value = WarpSum(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = shared[0];
  for (int w = 1; w < kRowWarps; ++w) sum += shared[w];
  return sum;
}

// Clears `h`, then adds key_mass(i, key, mass) of every i < n whose key has the digit's parent in `parent`.
template <typename KeyMass, typename Digit>
__device__ void FillHistogram(RowHistogram& h, int32_t n, KeyMass key_mass, Digit digit) {
  __syncthreads();
  for (int b = threadIdx.x; b < kMaxBuckets; b += kRowThreads) {
    h.mass[b] = 0;
    h.count[b] = 0;
  }
  __syncthreads();
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
    uint32_t key = 0;
    uint64_t mass = 0;
    key_mass(i, key, mass);
    const int32_t bucket = key == 0 ? -1 : digit(key);
    if (bucket < 0) continue;
    atomicAdd(&h.count[bucket], 1u);
    if (mass != 0) {
      atomicAdd(reinterpret_cast<unsigned long long*>(&h.mass[bucket]),
                static_cast<unsigned long long>(mass));
    }
  }
  __syncthreads();
}

// Walks the buckets from the highest: into s.bucket the one in which the running count reaches `count` (when > 0), else
// the running mass reaches `mass`; what lies before it is added to the s.*_before. The last bucket in use if rounding
// leaves none.
__device__ inline void FindBucket(const RowHistogram& h, uint32_t count, uint64_t mass,
                                  RowShared& s) {
  constexpr int kEach = kMaxBuckets / kRowThreads;
  const int top = kMaxBuckets - 1 - static_cast<int>(threadIdx.x) * kEach;  // downwards from here
  uint32_t my_count = 0;
  uint64_t my_mass = 0;
  for (int b = 0; b < kEach; ++b) {
    my_count += h.count[top - b];
    my_mass += h.mass[top - b];
  }
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint32_t count_to = my_count;
  uint64_t mass_to = my_mass;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const uint32_t c = __shfl_up_sync(kAllLanes, count_to, offset);
    const uint64_t m = __shfl_up_sync(kAllLanes, mass_to, offset);
    if (lane >= offset) {
      count_to += c;
      mass_to += m;
    }
  }
  if (lane == kWarp - 1) {
    s.warp_count[warp] = count_to;
    s.warp_mass[warp] = mass_to;
  }
  const uint32_t base_count = s.count_before;
  const uint64_t base_mass = s.mass_before;
  __syncthreads();
  uint32_t all_count = 0;
  for (int w = 0; w < kRowWarps; ++w) {
    if (w < warp) {
      count_to += s.warp_count[w];
      mass_to += s.warp_mass[w];
    }
    all_count += s.warp_count[w];
  }
  uint32_t count_at = base_count + count_to - my_count;
  uint64_t mass_at = base_mass + mass_to - my_mass;
  for (int b = 0; b < kEach; ++b) {
    const uint32_t c = h.count[top - b];
    const uint64_t m = h.mass[top - b];
    const bool reached_before =
        count > 0 ? count_at >= count : mass_at >= mass && count_at > base_count;
    const bool last = count_at + c == base_count + all_count;
    const bool reaches = count > 0 ? count_at + c >= count : mass_at + m >= mass;
    if (c > 0 && !reached_before && (reaches || last)) {
      s.bucket = static_cast<uint32_t>(top - b);
      s.count_before = count_at;
      s.mass_before = mass_at;
    }
    count_at += c;
    mass_at += m;
  }
  __syncthreads();
}

// The cut at which `count` keys (when > 0), else `mass`, are reached. s.first holds the histogram of the high digits.
template <typename Digits, typename KeyMass>
__device__ RowCut FindCut(int32_t n, uint32_t count, uint64_t mass, KeyMass key_mass,
                          RowShared& s) {
  __syncthreads();
  if (threadIdx.x == 0) {
    s.count_before = 0;
    s.mass_before = 0;
  }
  __syncthreads();
  FindBucket(s.first, count, mass, s);
  const uint32_t high = s.bucket;
  FillHistogram(s.finer, n, key_mass, [=](uint32_t key) {
    return (key >> Digits::kHigh) != high
               ? -1
               : static_cast<int32_t>((key >> Digits::kLow) &
                                      ((1u << (Digits::kHigh - Digits::kLow)) - 1));
  });
  FindBucket(s.finer, count, mass, s);
  const uint32_t upper = (high << (Digits::kHigh - Digits::kLow)) | s.bucket;
  FillHistogram(s.finer, n, key_mass, [=](uint32_t key) {
    return (key >> Digits::kLow) != upper ? -1
                                          : static_cast<int32_t>(key & ((1u << Digits::kLow) - 1));
  });
  FindBucket(s.finer, count, mass, s);
  RowCut cut;
  cut.key = (upper << Digits::kLow) | s.bucket;
  const uint32_t equal = s.finer.count[s.bucket];
  const uint64_t each = s.finer.mass[s.bucket] / equal;  // equal keys have equal masses
  if (count > 0) {
    cut.needed = min(count - s.count_before, equal);
  } else {
    const uint64_t missing = mass > s.mass_before ? mass - s.mass_before : 1;
    const uint64_t whole = each == 0 ? equal : (missing + each - 1) / each;
    cut.needed = static_cast<uint32_t>(whole < equal ? (whole == 0 ? 1 : whole) : equal);
  }
  cut.mass = s.mass_before + cut.needed * each;
  __syncthreads();
  return cut;
}

// Index of the `rank`-th (from 1) of those i < n for which is(i), in ascending order; -1 when there are fewer. Each warp
// counts a range of its own, then the one that holds the rank looks again.
template <typename Is>
__device__ int32_t NthIndex(int32_t n, uint32_t rank, Is is, RowShared& s) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int32_t range = (n + kRowWarps * kWarp - 1) / (kRowWarps * kWarp) * kWarp;
  const int32_t begin = min(warp * range, n);
  const int32_t end = min(begin + range, n);
  uint32_t mine = 0;
  for (int32_t i = begin; i < end; i += kWarp) {
    mine += __popc(__ballot_sync(kAllLanes, i + lane < end && is(i + lane)));
  }
  __syncthreads();
  if (lane == 0) s.warp_count[warp] = mine;
  if (threadIdx.x == 0) s.index = -1;
  __syncthreads();
  uint32_t before = 0;
  for (int w = 0; w < warp; ++w) before += s.warp_count[w];
  if (before < rank && rank <= before + mine) {
    for (int32_t i = begin; i < end; i += kWarp) {
      const uint32_t here = __ballot_sync(kAllLanes, i + lane < end && is(i + lane));
      const uint32_t place = before + __popc(here & ((2u << lane) - 1));
      if ((here >> lane & 1) != 0 && place == rank) s.index = i + lane;
      before += __popc(here);
    }
  }
  __syncthreads();
  const int32_t index = s.index;
  __syncthreads();
  return index;
}

}  // namespace spin::cuda
