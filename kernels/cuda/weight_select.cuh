// Answers within one bucket of a WeightTable, exact to the token, from the list of the bucket's entries: by further
// digits of the weight's bits, then by id. Atomics made the list: entries are in no order, and answers do not depend on
// it.
#pragma once

#include <cstdint>

#include "kernels/cuda/weight_table.cuh"

namespace spin::cuda {

constexpr int kDigitBits = 9;
constexpr int kDigits = 1 << kDigitBits;
static_assert(kDigits == kRowThreads && 2 * kDigitBits == kBucketShift);

// Tokens [weight bits << 32 | id] that may be asked about.
struct WeightList {
  const uint64_t* entry;
  int32_t size;

  // Calls visit(bits, id, valid) in all threads of a warp together, `valid` for entries.
  template <typename Visit>
  __device__ __forceinline__ void ForEach(Visit visit) const {
#pragma unroll 4
    for (int32_t first = 0; first < size; first += kRowThreads) {
      const int32_t i = first + static_cast<int32_t>(threadIdx.x);
      const uint64_t e = i < size ? entry[i] : 0;
      visit(static_cast<uint32_t>(e >> 32), static_cast<uint32_t>(e), i < size);
    }
  }
};

// A cut of the order: of the `of` tokens that weigh `bits` the `ties` lowest ids belong to the prefix.
struct Cut {
  uint32_t bits;
  uint32_t ties, of;
  uint64_t mass;  // of the prefix
};

class WeightSelect {
 public:
  struct Shared {
    uint32_t count[kDigits];
    uint32_t low[kDigits];
    Tally warps[kRowWarps];
    uint32_t digit;
    Tally before, own;
    uint64_t sum;
  };
  __device__ WeightSelect(WeightList list, Shared& shared) : list_(list), shared_(shared) {}

  // The prefix that ends with the token of that rank, counted from 1. REQUIRES: it is in `place`.
  __device__ Cut UpToRank(const Place& place, uint32_t rank) {
    return Select(place, rank - place.before.count, 0);
  }
  // The shortest prefix whose mass reaches `target`. REQUIRES: it ends in `place`.
  __device__ Cut UpToMass(const Place& place, uint64_t target) {
    return Select(place, 0, SumReaching(place.bucket, target - place.before.sum));
  }
  // Mass of the tokens of `place` and before that weigh at least `least_bits`.
  __device__ uint64_t MassFrom(const Place& place, uint32_t least_bits) {
    Tally mine;
    list_.ForEach([&](uint32_t bits, uint32_t, bool valid) {
      if (valid && BucketOf(bits) == place.bucket && bits >= least_bits)
        mine.sum += SignificandOf(bits);
    });
    const Tally all = ScanTallies(mine, shared_.warps).total;
    return place.before.sum + MassOf(place.bucket, all.sum);
  }
  // Id of the cut's last token.
  __device__ int32_t LastToken(const Cut& cut);

 private:
  // Where in the order of digits the rank-th entry (or, with rank 0, the sum) is.
  struct Digit {
    uint32_t digit;
    Tally before;
    uint32_t count;
  };
  __device__ void Clear() {
    shared_.count[threadIdx.x] = 0;
    shared_.low[threadIdx.x] = 0;
    __syncthreads();
  }
  __device__ Digit Find(uint32_t digit, Tally own, uint32_t rank, uint64_t sum);
  __device__ Cut Select(const Place& place, uint32_t rank, uint64_t sum);

  WeightList list_;
  Shared& shared_;
};

// This thread's digit holds `own`; threads are in the order of digits.
__device__ inline WeightSelect::Digit WeightSelect::Find(uint32_t digit, Tally own, uint32_t rank,
                                                         uint64_t sum) {
  const Tally before = ScanTallies(own, shared_.warps).before;
  const bool here = rank > 0 ? before.count < rank && rank <= before.count + own.count
                             : before.sum < sum && sum <= before.sum + own.sum;
  if (here) {
    shared_.digit = digit;
    shared_.before = before;
    shared_.own = own;
  }
  __syncthreads();
  const Digit found = {shared_.digit, shared_.before, shared_.own.count};
  __syncthreads();
  return found;
}

// With rank > 0 the prefix of so many tokens of the bucket, otherwise the shortest whose significands reach `sum`.
__device__ inline Cut WeightSelect::Select(const Place& place, uint32_t rank, uint64_t sum) {
  const uint32_t digit = kDigits - 1 - threadIdx.x;  // heavier first
  uint32_t prefix = static_cast<uint32_t>(kTopBucketBits - place.bucket);
  Tally before;
  uint32_t ties = 0;
  for (int level = 0; level < 2; ++level) {
    const int shift = level == 0 ? kDigitBits : 0;
    Clear();
    list_.ForEach([&](uint32_t bits, uint32_t, bool valid) {
      const bool in = valid && bits >> (shift + kDigitBits) == prefix;
      const uint32_t low = in ? bits & ((1u << shift) - 1) : 0;
      const auto bin = static_cast<int32_t>((bits >> shift) % kDigits);
      AddToBin(in ? bin : -1, low, shared_.count, shared_.low);
    });
    __syncthreads();
    const uint32_t count = shared_.count[digit];
    const uint32_t least = (prefix << kDigitBits | digit) << shift;
    const Tally own = {count, uint64_t{count} * SignificandOf(least) + shared_.low[digit]};
    const Digit found = Find(digit, own, rank, sum);
    before = before + found.before;
    if (rank > 0) {
      rank -= found.before.count;
    } else {
      sum -= found.before.sum;
    }
    prefix = prefix << kDigitBits | found.digit;
    ties = found.count;
  }
  const uint64_t each = SignificandOf(prefix);
  const uint32_t taken = rank > 0 ? rank : static_cast<uint32_t>((sum + each - 1) / each);
  return {prefix, taken, ties, place.before.sum + MassOf(place.bucket, before.sum + taken * each)};
}

__device__ inline int32_t WeightSelect::LastToken(const Cut& cut) {
  constexpr int kIdShift =
      kMaxVocabBits - kDigitBits;  // leading digit of an id; the rest is a bit of a set
  constexpr uint32_t kSetWords = (1u << kIdShift) / 32;
  static_assert(kSetWords == kWarp);
  uint32_t high = 0, rank = cut.ties;
  if (cut.of > 1) {
    Clear();
    list_.ForEach([&](uint32_t bits, uint32_t id, bool valid) {
      const bool in = valid && bits == cut.bits;
      AddToBin(in ? static_cast<int32_t>(id >> kIdShift) : -1, 0, shared_.count, shared_.low);
    });
    __syncthreads();
    const Digit found = Find(threadIdx.x, {shared_.count[threadIdx.x], 0}, rank, 0);
    high = found.digit;
    rank -= found.before.count;
  }
  Clear();
  list_.ForEach([&](uint32_t bits, uint32_t id, bool valid) {
    if (!valid || bits != cut.bits) return;
    if (cut.of == 1) {
      shared_.digit = id;
    } else if (id >> kIdShift == high) {
      atomicOr(shared_.count + (id / 32) % kSetWords, 1u << (id % 32));
    }
  });
  __syncthreads();
  if (cut.of > 1 && threadIdx.x < kWarp) {
    uint32_t word = shared_.count[threadIdx.x];
    const auto own = static_cast<uint32_t>(__popc(word));
    uint32_t through = own;
    for (unsigned offset = 1; offset < kWarp; offset *= 2) {
      const uint32_t other = __shfl_up_sync(kAllLanes, through, offset);
      if (threadIdx.x >= offset) through += other;
    }
    const uint32_t before = through - own;
    if (before < rank && rank <= through) {
      for (uint32_t i = before + 1; i < rank; ++i) word &= word - 1;
      shared_.digit = high << kIdShift | threadIdx.x * 32 | (__ffs(static_cast<int>(word)) - 1);
    }
  }
  __syncthreads();
  return static_cast<int32_t>(shared_.digit);
}

}  // namespace spin::cuda
