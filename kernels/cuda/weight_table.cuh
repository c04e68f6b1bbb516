// The tokens of one row in descending weight (ties: lower id), without sorting the vocabulary: the twin of
// kernels/cpu/ranked_weights.h, for a CTA of kRowThreads.
//
// Weights in (0, 1] are counted into buckets by their leading bits, 32 an octave. A bucket's weights share their
// exponent, so the sum of their significands is an exact integer, whatever the order of additions: tables come out of
// atomics and are deterministic. Across buckets masses are integers too, in units of 2^-44, each bucket rounded down
// once: sums of prefixes are associative and monotone. The CPU adds the same prefixes in double; the two differ by at
// most 1e-11 of the heaviest weight, so a draw (or a cut by top_p) can differ where its target falls so close to a
// boundary: less than one in a million draws from the flattest row. Rows whose sums are exact in both (equal
// logits) never differ.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

constexpr int kRowThreads = 512;
constexpr int kRowWarps = kRowThreads / kWarp;

// ---- Weights, buckets, masses ------------------------------------------------------------------------------------

constexpr int kBucketShift = 18;  // of a float's bits: sign, exponent, five bits of mantissa
constexpr int32_t kTopBucketBits = 0x3f800000 >> kBucketShift;  // of weight 1: bucket 0
constexpr int32_t kNumBuckets = kTopBucketBits + 1;
constexpr int32_t kTableSize = 4096;  // kNumBuckets and empty ones, 8 a thread
constexpr int kPerThread = kTableSize / kRowThreads;
constexpr int kMassBits = 44;      // a weight of 1 is 2^44
constexpr int kMaxVocabBits = 19;  // so that the mass of a row fits 64 bits

// What a table entry packs: weights of the bucket, and the sum of their low kBucketShift bits.
constexpr int kSumBits = kMaxVocabBits + kBucketShift + 1;
__host__ __device__ constexpr uint64_t PackEntry(uint32_t count, uint64_t low_sum) {
  return (uint64_t{count} << kSumBits) | low_sum;
}

struct Tally {
  uint32_t count = 0;
  uint64_t sum = 0;
};
__device__ __forceinline__ Tally operator+(Tally a, Tally b) {
  return {a.count + b.count, a.sum + b.sum};
}

__device__ __forceinline__ int32_t BucketOf(uint32_t weight_bits) {
  return kTopBucketBits - static_cast<int32_t>(weight_bits >> kBucketShift);
}
// The 24-bit significand of a normal float.
__device__ __forceinline__ uint32_t SignificandOf(uint32_t weight_bits) {
  return (weight_bits & 0x7fffffu) | 0x800000u;
}
// The mass of significands that add up to `sum`, for weights of one bucket.
__device__ __forceinline__ int MassShift(int32_t bucket) {
  constexpr int kUnit =
      127 + 23 - kMassBits;  // the exponent field at which a significand's unit is a mass's
  return ((kTopBucketBits - bucket) >> 5) - kUnit;
}
__device__ __forceinline__ uint64_t MassOf(int32_t bucket, uint64_t sum) {
  const int shift = MassShift(bucket);
  if (shift >= 0) return sum << shift;
  return shift > -64 ? sum >> -shift : 0;
}
// The least sum whose mass is at least `mass`. REQUIRES: the bucket has so much.
__device__ __forceinline__ uint64_t SumReaching(int32_t bucket, uint64_t mass) {
  const int shift = MassShift(bucket);
  if (shift >= 0) return (mass + (uint64_t{1} << shift) - 1) >> shift;
  return mass << -shift;
}
// Weights and mass of a table entry.
__device__ __forceinline__ Tally Unpack(int32_t bucket, uint64_t entry) {
  const auto count = static_cast<uint32_t>(entry >> kSumBits);
  if (count == 0) return {};
  const uint32_t least = static_cast<uint32_t>(kTopBucketBits - bucket) << kBucketShift;
  const uint64_t low = entry & ((uint64_t{1} << kSumBits) - 1);
  return {count, MassOf(bucket, uint64_t{count} * SignificandOf(least) + low)};
}
// share * mass, rounded up: the mass that a prefix has to reach.
__device__ __forceinline__ uint64_t TargetOf(float share, uint64_t mass) {
  const double target = ceil(static_cast<double>(share) * static_cast<double>(mass));
  if (!(target > 1)) return 1;
  return min(static_cast<uint64_t>(target), max(mass, uint64_t{1}));
}

// ---- Helpers of the CTA ------------------------------------------------------------------------------------------

// Counts an entry at `bin`, and adds its `low`; bin < 0 adds nothing. All lanes of the warp call it. Lanes that agree
// (equal logits) add up first: shared memory would take them one by one.
__device__ __forceinline__ void AddToBin(int32_t bin, uint32_t low, uint32_t* counts,
                                         uint32_t* lows) {
  const int32_t first = __shfl_sync(kAllLanes, bin, 0);
  if (__all_sync(kAllLanes, bin == first)) {
    if (first < 0) return;
    const uint32_t sum = __reduce_add_sync(kAllLanes, low);
    if (threadIdx.x % kWarp == 0) {
      atomicAdd(counts + first, static_cast<uint32_t>(kWarp));
      atomicAdd(lows + first, sum);
    }
  } else if (bin >= 0) {
    atomicAdd(counts + bin, 1u);
    atomicAdd(lows + bin, low);
  }
}

// Sum of the tallies of the threads before this one, and of all.
struct Scan {
  Tally before, total;
};
__device__ __forceinline__ Scan ScanTallies(Tally mine, Tally (&warps)[kRowWarps]) {
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  Tally through = mine;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const Tally other = {__shfl_up_sync(kAllLanes, through.count, offset),
                         __shfl_up_sync(kAllLanes, through.sum, offset)};
    if (lane >= offset) through = through + other;
  }
  if (lane == kWarp - 1) warps[warp] = through;
  __syncthreads();
  Scan scan;
  for (unsigned w = 0; w < kRowWarps; ++w) {
    if (w == warp) scan.before = scan.total;
    scan.total = scan.total + warps[w];
  }
  __syncthreads();
  scan.before.count += through.count - mine.count;
  scan.before.sum += through.sum - mine.sum;
  return scan;
}

// ---- The table ---------------------------------------------------------------------------------------------------

// A bucket, and the prefix before it.
struct Place {
  int32_t bucket = 0;
  Tally before;  // sum: mass
  Tally own;
};

// One row's buckets in shared memory. All threads call every method and get the same answer.
class WeightTable {
 public:
  struct Shared {
    uint64_t entry[kTableSize + kTableSize / kPerThread];  // a gap a thread: no bank conflicts
    Tally warps[kRowWarps];
    Place found;
  };

  // `table` [kTableSize] is global memory, written by atomics.
  __device__ WeightTable(const uint64_t* table, Shared& shared) : shared_(shared) {
    for (int i = threadIdx.x; i < kTableSize; i += kRowThreads) {
      shared_.entry[At(i)] = __ldcg(reinterpret_cast<const unsigned long long*>(table) + i);
    }
    __syncthreads();
    for (int i = 0; i < kPerThread; ++i) own_ = own_ + Entry(first() + i);
    const Scan scan = ScanTallies(own_, shared_.warps);
    before_ = scan.before;
    total_ = scan.total;
  }

  __device__ uint32_t count() const { return total_.count; }
  __device__ uint64_t mass() const { return total_.sum; }

  // Where the k-th heaviest token is. REQUIRES: 0 < k <= count().
  __device__ Place OfRank(uint32_t k) {
    return Find(before_.count < k && k <= before_.count + own_.count,
                [k](const Place& p) { return k <= p.before.count + p.own.count; });
  }
  // Where the mass reaches `target`. REQUIRES: 0 < target <= mass().
  __device__ Place OfMass(uint64_t target) {
    return Find(before_.sum < target && target <= before_.sum + own_.sum,
                [target](const Place& p) { return target <= p.before.sum + p.own.sum; });
  }
  __device__ Place OfBucket(int32_t bucket) {
    return Find(bucket / kPerThread == static_cast<int32_t>(threadIdx.x),
                [bucket](const Place& p) { return p.bucket == bucket; });
  }

 private:
  __device__ static int At(int bucket) { return bucket + bucket / kPerThread; }
  __device__ int32_t first() const { return static_cast<int32_t>(threadIdx.x) * kPerThread; }
  __device__ Tally Entry(int32_t bucket) const { return Unpack(bucket, shared_.entry[At(bucket)]); }

  // The first of the thread's buckets that is `it`, published by the one thread that has it (`mine`).
  template <typename Predicate>
  __device__ Place Find(bool mine, Predicate it) {
    if (mine) {
      Place place = {first(), before_, Entry(first())};
      for (int i = 1; i < kPerThread && !it(place); ++i) {
        place = {first() + i, place.before + place.own, Entry(first() + i)};
      }
      shared_.found = place;
    }
    __syncthreads();
    const Place found = shared_.found;
    __syncthreads();
    return found;
  }

  Shared& shared_;
  Tally own_, before_, total_;
};

}  // namespace spin::cuda
