// The greatest k of a row of scores, exactly, by one CTA. Scores become ordered keys, held in registers: a key orders
// as the score does, -0 equals +0, and NaN is below everything. The k-th greatest of the threads' own maxima bounds the
// answer from below and few keys reach it, so that the radix selection counts those few; then compaction in order of
// id. The ids are those of kernels/cpu/top_scores.h for the same scores.
#pragma once

#include <climits>
#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace spin::cuda::top_scores {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kSegment = 4 * kThreads;        // scores that the CTA reads at once
constexpr int kSegments = 4;                  // of a chunk
constexpr int kChunk = kSegments * kSegment;  // scores held in registers, 16 a thread
constexpr int kDigitBits = 11;
constexpr int kBins = 1 << kDigitBits;
static_assert(kBins == 4 * kThreads);            // a thread scans four bins
static_assert(kWarps * kSegments == 2 * kWarp);  // a lane scans two counts

struct Shared {
  __device__ void Clear() { histogram[threadIdx.x] = {}; }  // each thread, before all else

  int4 histogram[kThreads];
  uint32_t reduced[2][kWarps];   // least and greatest maximum of each warp's threads
  int32_t keys_of_warp[kWarps];  // in its bins
  int32_t digit, left, in_bin;   // where the cut is
  uint32_t
      counts[kSegments * kWarps];  // above the cut in the low half, equal to it in the high one
};

__device__ __forceinline__ int Lane() {
  return static_cast<int>(threadIdx.x % kWarp);
}
__device__ __forceinline__ int Warp() {
  return static_cast<int>(threadIdx.x / kWarp);
}

// Inclusive sum over the lanes up to this one.
template <typename T>
__device__ __forceinline__ T WarpScan(T value) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const T below = __shfl_up_sync(kAllLanes, value, offset);
    if (Lane() >= offset) value += below;
  }
  return value;
}

constexpr uint32_t kNoKey = 0;   // of what is no candidate: below all
constexpr uint32_t kNanKey = 1;  // below the key of every number

__device__ __forceinline__ uint32_t OrderedKey(float score) {
  uint32_t bits = __float_as_uint(score);
  if (bits << 1 > 0xff000000u) return kNanKey;
  if (bits << 1 == 0) bits = 0;  // -0
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

// The scores to choose from: pages first .. end - 1.
struct Candidates {
  const float* scores;
  int32_t first, end;
};

// The ordered keys of the candidates, a chunk at a time, kNoKey between them. Within a chunk ids ascend by segment,
// thread, element.
class Keys {
 public:
  __device__ explicit Keys(const Candidates& from) : from_(from) { Load(0); }

  // Calls visit(key) for each of this thread's candidates, and some times with kNoKey.
  template <typename Visit>
  __device__ __forceinline__ void ForEach(Visit visit) {
    for (int32_t chunk = 0; chunk < from_.end; chunk += kChunk) {
      LoadAgain(chunk);
#pragma unroll
      for (int s = 0; s < kSegments; ++s) ForEachIn(chunk, s, visit);
    }
  }

  // Likewise for segment s of the chunk that is loaded, in the order of ids from Id(chunk, s) on.
  template <typename Visit>
  __device__ __forceinline__ void ForEachIn(int32_t chunk, int s, Visit visit) const {
    if (chunk + s * kSegment >= from_.end) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) visit(keys_[s][i]);
  }
  static __device__ __forceinline__ int32_t Id(int32_t chunk, int s) {
    return chunk + s * kSegment + 4 * static_cast<int32_t>(threadIdx.x);
  }

  // Makes a chunk the loaded one. A single chunk always is.
  __device__ __forceinline__ void LoadAgain(int32_t chunk) {
    if (from_.end > kChunk) Load(chunk);
  }

 private:
  __device__ __forceinline__ void Load(int32_t chunk) {
    float4 scores[kSegments];
#pragma unroll
    for (int s = 0; s < kSegments; ++s) {
      const int32_t id = Id(chunk, s);
      if (id < from_.end) scores[s] = *reinterpret_cast<const float4*>(from_.scores + id);
    }
#pragma unroll
    for (int s = 0; s < kSegments; ++s) {
      const float of_segment[4] = {scores[s].x, scores[s].y, scores[s].z, scores[s].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int32_t id = Id(chunk, s) + i;
        keys_[s][i] = id >= from_.first && id < from_.end ? OrderedKey(of_segment[i]) : kNoKey;
      }
    }
  }

  const Candidates& from_;
  uint32_t keys_[kSegments][4];
};

struct Cut {
  uint32_t key;   // everything above is chosen
  int32_t equal;  // and so many equal to it, lowest ids first
};

// Finds the bin that holds the k-th greatest of the keys that were counted: its digit, how many of it are among the k,
// how many it has. Leaves the histogram empty.
__device__ __forceinline__ void FindDigit(int32_t k, Shared& shared) {
  const int group = kThreads - 1 - static_cast<int>(threadIdx.x);  // thread 0 has the greatest bins
  const int4 of_group = shared.histogram[group];
  shared.histogram[group] = {};
  const int32_t bins[4] = {of_group.w, of_group.z, of_group.y, of_group.x};
  const int32_t sum = bins[0] + bins[1] + bins[2] + bins[3];
  const int32_t upto = WarpScan(sum);
  if (Lane() == kWarp - 1) shared.keys_of_warp[Warp()] = upto;
  __syncthreads();
  const int32_t before = Lane() < Warp() ? shared.keys_of_warp[Lane()] : 0;
  int32_t above = __reduce_add_sync(kAllLanes, before) + upto - sum;
  if (above < k && k <= above + sum) {  // one thread
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (above < k && k <= above + bins[i]) {
        shared.digit = 4 * group + 3 - i;
        shared.left = k - above;
        shared.in_bin = bins[i];
      }
      above += bins[i];
    }
  }
  __syncthreads();
}

// The maxima of the threads' keys.
struct Maxima {
  uint32_t own;              // this thread's; kNoKey when it has no candidate
  uint32_t least, greatest;  // of those that there are
  int32_t count;
};

__device__ __forceinline__ Maxima FindMaxima(Keys& keys, Shared& shared) {
  Maxima m = {};
  keys.ForEach([&](uint32_t key) { m.own = max(m.own, key); });
  const uint32_t least = __reduce_min_sync(kAllLanes, m.own != kNoKey ? m.own : UINT_MAX);
  const uint32_t greatest = __reduce_max_sync(kAllLanes, m.own);
  if (Lane() == 0) {
    shared.reduced[0][Warp()] = least;
    shared.reduced[1][Warp()] = greatest;
  }
  m.count = __syncthreads_count(m.own != kNoKey);
  m.least = __reduce_min_sync(kAllLanes, shared.reduced[0][Lane() % kWarps]);
  m.greatest = __reduce_max_sync(kAllLanes, shared.reduced[1][Lane() % kWarps]);
  return m;
}

// A range [least, greatest] of keys that is cut down digit by digit, from the highest bit in which they can differ:
// scores of one softmax spread over many bins that way.
class Range {
 public:
  __device__ Range(uint32_t least, uint32_t greatest) : least_(least), span_(greatest - least) {
    unknown_ = kWarp - __clz(static_cast<int>(least ^ greatest));
  }

  __device__ bool single() const { return unknown_ == 0; }
  __device__ uint32_t least() const { return least_; }

  // Counts a key that is within at its digit.
  __device__ __forceinline__ void Count(uint32_t key, Shared& shared) const {
    if (key - least_ > span_) return;
    const uint32_t digit = key >> shift() & ((1u << (unknown_ - shift())) - 1);
    atomicAdd(reinterpret_cast<int32_t*>(shared.histogram) + digit, 1);
  }
  // Leaves the keys with this digit.
  __device__ void Narrow(int32_t digit) {
    const uint32_t greatest = least_ + span_;
    const uint32_t known = unknown_ == 32 ? 0 : greatest >> unknown_ << unknown_;
    const uint32_t first = known | static_cast<uint32_t>(digit) << shift();
    const uint32_t last = first | ((1u << shift()) - 1);
    least_ = max(least_, first);
    span_ = min(greatest, last) - least_;
    unknown_ = shift();
  }

 private:
  __device__ int shift() const { return max(unknown_ - kDigitBits, 0); }

  uint32_t least_, span_;
  int unknown_;  // low bits in which the keys can differ
};

// A key that at least k candidates reach. REQUIRES: an empty histogram.
__device__ __forceinline__ uint32_t LowerBound(const Maxima& maxima, int32_t k, Shared& shared) {
  if (k > maxima.count) return kNanKey;
  Range range(maxima.least, maxima.greatest);
  if (!range.single()) {
    range.Count(maxima.own, shared);
    __syncthreads();
    FindDigit(k, shared);
    range.Narrow(shared.digit);
  }
  return range.least();
}

// The cut that chooses k. Two digits of the keys above the bound mostly do. REQUIRES: 0 < k <= candidates, an empty
// histogram.
__device__ __forceinline__ Cut FindCut(Keys& keys, int32_t k, Shared& shared) {
  const Maxima maxima = FindMaxima(keys, shared);
  Range range(LowerBound(maxima, k, shared), maxima.greatest);
  while (!range.single()) {
    keys.ForEach([&](uint32_t key) { range.Count(key, shared); });
    __syncthreads();
    FindDigit(k, shared);
    range.Narrow(shared.digit);
    k = shared.left;
    if (k == shared.in_bin) return {range.least(), INT_MAX};  // all that are left
  }
  return {range.least(), k};
}

// Calls visit(rank, id) for the chosen: behind those above the cut and the chosen equals before it.
template <typename Visit>
__device__ __forceinline__ void ForEachChosen(const Candidates& from, Keys& keys, Cut cut,
                                              Shared& shared, Visit visit) {
  int32_t above_before = 0, equal_before = 0;  // in earlier chunks
  for (int32_t chunk = 0; chunk < from.end; chunk += kChunk) {
    keys.LoadAgain(chunk);
    uint32_t before[kSegments];  // in lower lanes of the warp, both counts in one word
#pragma unroll
    for (int s = 0; s < kSegments; ++s) {
      uint32_t own = 0;
      keys.ForEachIn(chunk, s, [&](uint32_t key) {
        own += key > cut.key ? 1u : key == cut.key ? 0x10000u : 0u;
      });
      const uint32_t upto = WarpScan(own);
      before[s] = upto - own;
      if (Lane() == kWarp - 1) shared.counts[s * kWarps + Warp()] = upto;
    }
    __syncthreads();
    const uint32_t even = shared.counts[2 * Lane()];
    const uint32_t pair = even + shared.counts[2 * Lane() + 1];
    const uint32_t upto_pair = WarpScan(pair);
#pragma unroll
    for (int s = 0; s < kSegments; ++s) {
      const int index = s * kWarps + Warp();
      uint32_t at = before[s] + __shfl_sync(kAllLanes, upto_pair - pair, index / 2);
      const uint32_t neighbour = __shfl_sync(kAllLanes, even, index / 2);
      if (index % 2 != 0) at += neighbour;
      int32_t above = above_before + static_cast<int32_t>(at & 0xffff);
      int32_t equal = equal_before + static_cast<int32_t>(at >> 16);
      int32_t id = Keys::Id(chunk, s);
      keys.ForEachIn(chunk, s, [&](uint32_t key) {
        const bool is_equal = key == cut.key;
        if (key > cut.key || (is_equal && equal < cut.equal)) {
          visit(above + min(equal, cut.equal), id);
        }
        ++id;
        above += key > cut.key;
        equal += is_equal;
      });
    }
    const uint32_t total = __shfl_sync(kAllLanes, upto_pair, kWarp - 1);
    above_before += static_cast<int32_t>(total & 0xffff);
    equal_before += static_cast<int32_t>(total >> 16);
    __syncthreads();  // the next chunk counts anew
  }
}

// Calls visit(rank, id) once for each of the k best candidates, in some thread; ranks 0 .. k - 1 ascend with the ids,
// and ties go to the lower id. All threads of the CTA call it, after shared.Clear().
// REQUIRES: kThreads threads; 0 < k <= candidates; scores on 16 bytes, readable up to the next multiple of 4.
template <typename Visit>
__device__ __forceinline__ void ForEachTop(const Candidates& from, int32_t k, Shared& shared,
                                           Visit visit) {
  Keys keys(from);
  const Cut cut = FindCut(keys, k, shared);
  ForEachChosen(from, keys, cut, shared, visit);
}

}  // namespace spin::cuda::top_scores
