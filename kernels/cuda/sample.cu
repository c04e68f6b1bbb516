// The last step of a pass: logits become a token a row, and log-probabilities where asked. The twin of
// kernels/cpu/sample.cc: equal logits give equal tokens (weight_table.cuh says how closely sums agree).
//
// Three kernels, each over all rows, which split a row over CTAs of 8,192 logits; what a row needs at the end of each
// is done by the CTA that arrives last:
//   ScanRows      maximum and its index; statistics for log-probabilities. A greedy row is done after it. With top_k
//                 a bound that so many logits reach, and few more: such a row needs no CountWeights.
//   CountWeights  weights into buckets; last, which buckets an answer may lie in.
//   DrawTokens    the tokens of those buckets, or all that reach the bound, listed (the latter counted, too); last,
//                 top_k, top_p, min_p and the draw, from buckets and list.
// A row that a kernel has nothing to do for costs it one load.
//
// Floors, 32 rows of 151,936: 19.4 MB a pass, in L2 when the logits have just been computed: about 5 us a kernel. Two
// atomics on shared memory an element, where all are counted, are another 10 us. A greedy row alone: 19 CTAs, one
// latency and the arrival, 3 us.
#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/arrival.cuh"
#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_logprobs.cuh"
#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/sample_row.cuh"
#include "kernels/cuda/weight_select.cuh"
#include "kernels/cuda/weight_table.cuh"

namespace spin::cuda {
namespace {

constexpr float kLeastMinP = 0x1p-126f;  // below, min_p excludes nothing that has weight
constexpr float kMargin =
    1e-3f;  // of x / temperature: far wider than exp and its inverse can be wrong
constexpr int32_t kListInShared = 4096;  // entries; longer lists are read from L2
constexpr int32_t kMaxWarpKeys = kMaxChunks * kRowWarps;

union ScanShared {
  RawShared raw;
  float staged[kChunk];
  uint4 warp_keys[kMaxWarpKeys / 4];
};

union CountShared {
  float staged[kChunk];
  struct {
    uint32_t count[kTableSize];
    uint32_t low[kTableSize];
  } bins;
};

struct PlanShared {
  WeightTable::Shared table;
  uint32_t needed[kTableSize / 32];
};

union DrawShared {
  struct {
    float staged[kChunk];
    uint32_t needed[kTableSize / 32];
  } chunk;
  struct {
    WeightTable::Shared table;
    WeightSelect::Shared select;
    uint64_t list[kListInShared];
  } row;
};

constexpr size_t kCountBytes = std::max(sizeof(CountShared), sizeof(PlanShared));

// ---- A row's end -------------------------------------------------------------------------------------------------

// One thread.
__device__ void Finish(const SampleParams& p, const SampleRow& row, int32_t place, int32_t token,
                       const RowState& state) {
  SampledToken& out = p.out[place];
  out.token = token;
  if (row.settings.num_logprobs >= 0) {
    out.logprob = LogprobOf(row.logits[token], state.raw_max, state.raw_log_sum);
  } else {
    out.logprob = 0;
    out.num_top = 0;
  }
  if (row.history != nullptr) ++row.history[token];
  p.decode.position[row.row] = row.settings.prompt_tokens + row.generated;
  p.decode.token[row.row] = token;
}

// ---- ScanRows ----------------------------------------------------------------------------------------------------

// A logit that at least `k` of the row reach: the k-th greatest of the warps' maxima; -infinity when there are fewer.
// All threads.
__device__ float ReachedBy(int32_t k, int32_t chunks, const RowState& state, uint4* warp_keys) {
  __shared__ float reached;
  const int32_t n = chunks * kRowWarps;
  if (k > n) return kNegInf;
  auto* keys = reinterpret_cast<uint32_t*>(warp_keys);
  if (threadIdx.x == 0) reached = kNegInf;
  __syncthreads();
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
    keys[i] = __ldcg(&state.part[i / kRowWarps].warp_keys[i % kRowWarps]);
  }
  __syncthreads();
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
    const uint32_t key = keys[i];
    int32_t above = 0, through = 0;
#pragma unroll 4
    for (int32_t j = 0; j < n / 4; ++j) {
      const uint4 other = warp_keys[j];
      above += (other.x > key) + (other.y > key) + (other.z > key) + (other.w > key);
      through += (other.x >= key) + (other.y >= key) + (other.z >= key) + (other.w >= key);
    }
    if (above < k && k <= through && key != 0) reached = FloatOf(key);
  }
  __syncthreads();
  return reached;
}

// From the chunks' maxima to the row's: the token of a greedy row, and of one without a distribution to draw from.
__device__ void EndScan(const SampleParams& p, int32_t place, int32_t chunks, ScanShared& shared,
                        RowState& state) {
  const SampleRow row(p, place);  // again, rather than kept in registers
  const SamplingRow& s = row.settings;
  if (s.num_logprobs >= 0) {
    RowStatistics(state, chunks, s.num_logprobs, shared.raw, p.out + place);
    __syncthreads();
  }
  float reached = kNegInf;
  if (row.draws() && s.top_k > 0 && Divisor(s.temperature).ordinary()) {
    reached = ReachedBy(s.top_k, chunks, state, shared.warp_keys);
    if (threadIdx.x < kTableSize / 32) state.needed[threadIdx.x] = ~0u;
  }
  if (threadIdx.x >= kWarp) return;
  uint64_t best = 0;
  for (auto c = static_cast<int32_t>(threadIdx.x); c < chunks; c += kWarp) {
    const unsigned long long part =
        __ldcg(reinterpret_cast<const unsigned long long*>(&state.part[c].best));
    best = max(best, uint64_t{part});
  }
  best = WarpMax64(best);
  if (threadIdx.x > 0) return;
  const float max = MaxOf(best);
  const bool drawing = row.draws() && isfinite(max);
  state.stage = !drawing ? Stage::kDone : reached > kNegInf ? Stage::kBounded : Stage::kDrawing;
  state.max = max;
  // Weights are the order: a logit below `reached` that weighs the same as it is not left out.
  state.least = reached - max - s.temperature * kMargin;
  state.most = -kNegInf;
  state.listed = 0;
  if (!drawing) Finish(p, row, place, IndexOf(best), state);
}

__global__ void __launch_bounds__(kRowThreads, 2)
    ScanRows(SampleParams p, SampleScratch scratch, int32_t first_place) {
  __shared__ ScanShared shared;
  WaitForPredecessors();
  AllowSuccessors();
  const auto slot = static_cast<int32_t>(blockIdx.y);
  const int32_t place = first_place + slot;
  if (place >= NumRows(p.decode)) return;
  const SampleRow row(p, place);
  const SamplingRow& s = row.settings;
  RowState& state = scratch.State(slot);
  const auto chunk = static_cast<int32_t>(blockIdx.x);
  const auto chunks = static_cast<int32_t>(gridDim.x);
  const int32_t begin = chunk * kChunk;
  if (s.num_logprobs >= 0) {
    SPIN_DEVICE_CHECK(s.num_logprobs <= kMaxLogprobs);
    RawStatistics(row.logits, p.vocab, begin, s.num_logprobs, shared.raw, state.part[chunk],
                  state.top + chunk * s.num_logprobs);
  }
  float x[kElements];
  LoadAdjusted(row, begin, shared.staged, x);
  const uint64_t of_warp = WarpMax64(BestOf(x, begin));
  if (threadIdx.x % kWarp == 0) {
    state.part[chunk].warp_keys[threadIdx.x / kWarp] = static_cast<uint32_t>(of_warp >> 32);
  }
  const uint64_t best = BlockMax(of_warp);
  if (threadIdx.x == 0) state.part[chunk].best = best;
  if (row.draws()) {
    for (int i = chunk * kRowThreads + threadIdx.x; i < kTableSize; i += chunks * kRowThreads) {
      state.table[i] = 0;
    }
  }
  if (!LastToArrive(scratch.tickets + slot, 1, gridDim.x)) return;
  EndScan(p, place, chunks, shared, state);
}

// ---- CountWeights ------------------------------------------------------------------------------------------------

// The begin of a kernel behind ScanRows: what is left to do for the row at `place`, whose state this is.
__device__ __forceinline__ Stage StageOf(const SampleParams& p, int32_t place,
                                         const RowState& state) {
  WaitForPredecessors();
  AllowSuccessors();
  const Stage stage = LoadNow(&state.stage);
  return place < NumRows(p.decode) ? stage : Stage::kDone;
}

// The buckets that some answer lies in. Cuts within a bucket are not known before its tokens are: until then a mass is
// an interval [least, most], and so is what follows from it.
__device__ void Plan(const SampleRow& row, PlanShared& shared, RowState& state) {
  for (unsigned i = threadIdx.x; i < kTableSize / 32; i += kRowThreads) shared.needed[i] = 0;
  WeightTable table(state.table, shared.table);
  const SamplingRow& s = row.settings;
  int32_t first = kTableSize, last = 0;
  const auto need = [&](int32_t from, int32_t to) {
    for (int32_t b = from + static_cast<int32_t>(threadIdx.x); b <= to; b += kRowThreads) {
      atomicOr(shared.needed + b / 32, 1u << (b % 32));
    }
    first = min(first, from);
    last = max(last, to);
  };
  uint64_t least = table.mass(), most = table.mass();
  const auto top_k = static_cast<uint32_t>(s.top_k);
  if (s.top_k > 0 && top_k < table.count()) {
    const Place place = table.OfRank(top_k);
    least = place.before.sum;
    most = place.before.sum + place.own.sum;
    need(place.bucket, place.bucket);
  }
  if (s.top_p < 1) {
    const Place from = table.OfMass(TargetOf(s.top_p, least));
    const Place to = table.OfMass(TargetOf(s.top_p, most));
    least = min(least, from.before.sum);
    most = min(most, to.before.sum + to.own.sum);
    need(from.bucket, to.bucket);
  }
  if (s.min_p >= kLeastMinP) {
    const Place place = table.OfBucket(BucketOf(__float_as_uint(fminf(s.min_p, 1.0f))));
    least = min(least, place.before.sum);
    most = min(most, place.before.sum + place.own.sum);
    need(place.bucket, place.bucket);
  }
  const float u = row.Uniform();
  need(table.OfMass(TargetOf(u, least)).bucket, table.OfMass(TargetOf(u, most)).bucket);
  __syncthreads();
  for (unsigned i = threadIdx.x; i < kTableSize / 32; i += kRowThreads) {
    state.needed[i] = shared.needed[i];
  }
  if (threadIdx.x > 0) return;
  // Where x - max lies for weights of [first, last].
  const auto least_bits = static_cast<uint32_t>(kTopBucketBits - last) << kBucketShift;
  const auto most_bits = static_cast<uint32_t>(kTopBucketBits - first + 1) << kBucketShift;
  const bool ordinary = Divisor(s.temperature).ordinary() && last < kTopBucketBits - 32;
  state.least = ordinary ? s.temperature * (logf(__uint_as_float(least_bits)) - kMargin) : kNegInf;
  state.most = ordinary ? s.temperature * (logf(__uint_as_float(most_bits)) + kMargin) : -kNegInf;
}

__global__ void __launch_bounds__(kRowThreads, 2)
    CountWeights(SampleParams p, SampleScratch scratch, int32_t first_place) {
  extern __shared__ __align__(16) char memory[];
  auto& shared = *reinterpret_cast<CountShared*>(memory);
  const auto slot = static_cast<int32_t>(blockIdx.y);
  const int32_t place = first_place + slot;
  RowState& state = scratch.State(slot);
  if (StageOf(p, place, state) != Stage::kDrawing) return;
  const SampleRow row(p, place);
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kChunk;
  float x[kElements];
  LoadAdjusted(row, begin, shared.staged, x);
  for (int i = threadIdx.x; i < kTableSize; i += kRowThreads) {
    shared.bins.count[i] = 0;
    shared.bins.low[i] = 0;
  }
  __syncthreads();
  const float max = state.max;
  const Divisor temperature(row.settings.temperature);
#pragma unroll
  for (int k = 0; k < kElements; ++k) {
    const float weight = ExpNonPositive(temperature.Divide(x[k] - max));
    const uint32_t bits = __float_as_uint(weight);
    const uint32_t low = bits & ((1u << kBucketShift) - 1);
    AddToBin(weight > 0 ? BucketOf(bits) : -1, low, shared.bins.count, shared.bins.low);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTableSize; i += kRowThreads) {
    const uint32_t count = shared.bins.count[i];
    if (count == 0) continue;
    atomicAdd(reinterpret_cast<unsigned long long*>(state.table) + i,
              static_cast<unsigned long long>(PackEntry(count, shared.bins.low[i])));
  }
  if (!LastToArrive(scratch.tickets + slot, 1, gridDim.x)) return;
  Plan(row, *reinterpret_cast<PlanShared*>(memory), state);
}

// ---- DrawTokens --------------------------------------------------------------------------------------------------

// Appends the thread's entries that have weight bits; a warp takes its room at once.
__device__ __forceinline__ void Append(const uint32_t (&bits)[kElements], int32_t begin,
                                       uint32_t* size, uint64_t* list) {
  const unsigned lane = threadIdx.x % kWarp;
  uint32_t own = 0;
#pragma unroll
  for (int k = 0; k < kElements; ++k) own += bits[k] != 0 ? 1 : 0;
  uint32_t through = own;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const uint32_t other = __shfl_up_sync(kAllLanes, through, offset);
    if (lane >= offset) through += other;
  }
  const uint32_t total = __shfl_sync(kAllLanes, through, kWarp - 1);
  if (total == 0) return;
  uint32_t at = lane == 0 ? atomicAdd(size, total) : 0;
  at = __shfl_sync(kAllLanes, at, 0) + through - own;
#pragma unroll
  for (int k = 0; k < kElements; ++k) {
    if (bits[k] == 0) continue;
    list[at++] = (uint64_t{bits[k]} << 32) | static_cast<uint32_t>(begin + OffsetOf(k));
  }
}

// One draw from softmax(x / temperature), cut to a prefix of the descending order: the top_k first, of these the fewest
// whose share reaches top_p (at least one), of these those at least min_p times as probable as the first.
__device__ int32_t Draw(const SampleRow& row, WeightTable& table, WeightSelect& select) {
  const SamplingRow& s = row.settings;
  uint64_t mass = table.mass();
  const auto top_k = static_cast<uint32_t>(s.top_k);
  if (s.top_k > 0 && top_k < table.count()) {
    mass = select.UpToRank(table.OfRank(top_k), top_k).mass;
  }
  if (s.top_p < 1) {
    const uint64_t target = TargetOf(s.top_p, mass);
    mass = min(mass, select.UpToMass(table.OfMass(target), target).mass);
  }
  if (s.min_p >= kLeastMinP) {
    const Place place = table.OfBucket(BucketOf(__float_as_uint(fminf(s.min_p, 1.0f))));
    mass = min(mass, select.MassFrom(place, __float_as_uint(s.min_p)));
  }
  const uint64_t target = TargetOf(row.Uniform(), mass);
  return select.LastToken(select.UpToMass(table.OfMass(target), target));
}

// Counts the warp's entries that have weight bits. Where a warp agrees (equal logits) one lane counts for all.
__device__ __forceinline__ void Count(const uint32_t (&bits)[kElements], uint64_t* table) {
#pragma unroll
  for (int k = 0; k < kElements; ++k) {
    if (!__any_sync(kAllLanes, bits[k] != 0)) continue;
    const bool equal = __all_sync(kAllLanes, bits[k] == __shfl_sync(kAllLanes, bits[k], 0));
    if (bits[k] == 0 || (equal && threadIdx.x % kWarp > 0)) continue;
    const uint64_t entry = PackEntry(1, bits[k] & ((1u << kBucketShift) - 1));
    atomicAdd(reinterpret_cast<unsigned long long*>(table) + BucketOf(bits[k]),
              static_cast<unsigned long long>(equal ? kWarp * entry : entry));
  }
}

// Lists what the chunk has of the needed buckets.
__device__ void ListChunk(const SampleRow& row, int32_t begin, DrawShared& shared, RowState& state,
                          uint64_t* list) {
  float x[kElements];
  uint32_t* needed = shared.chunk.needed;
  if (threadIdx.x < kTableSize / 32) needed[threadIdx.x] = state.needed[threadIdx.x];
  LoadAdjusted(row, begin, shared.chunk.staged, x);
  __syncthreads();
  const float max = state.max, least = state.least, most = state.most;
  const Divisor temperature(row.settings.temperature);
  uint32_t listed[kElements];
#pragma unroll
  for (int k = 0; k < kElements; ++k) {
    const float below = x[k] - max;
    listed[k] = 0;
    if (!(below >= least && below <= most)) continue;
    const float weight = ExpNonPositive(temperature.Divide(below));
    if (!(weight > 0)) continue;
    const int32_t bucket = BucketOf(__float_as_uint(weight));
    if ((needed[bucket / 32] >> (bucket % 32) & 1) != 0) listed[k] = __float_as_uint(weight);
  }
  if (state.stage == Stage::kBounded) Count(listed, state.table);
  Append(listed, begin, &state.listed, list);
}

// The row's token, from its buckets and its list.
__device__ void EndDraw(const SampleParams& p, int32_t place, const uint64_t* listed,
                        DrawShared& shared, const RowState& state) {
  WeightList list = {listed, static_cast<int32_t>(__ldcg(&state.listed))};
  if (list.size <= kListInShared) {
    for (int32_t i = threadIdx.x; i < list.size; i += kRowThreads) {
      shared.row.list[i] = __ldcg(reinterpret_cast<const unsigned long long*>(listed) + i);
    }
    list.entry = shared.row.list;
  }
  WeightTable table(state.table, shared.row.table);
  WeightSelect select(list, shared.row.select);
  const SampleRow row(p, place);  // again, rather than kept in registers
  const int32_t token = Draw(row, table, select);
  if (threadIdx.x == 0) Finish(p, row, place, token, state);
}

__global__ void __launch_bounds__(kRowThreads, 2)
    DrawTokens(SampleParams p, SampleScratch scratch, int32_t first_place) {
  extern __shared__ __align__(16) char memory[];
  auto& shared = *reinterpret_cast<DrawShared*>(memory);
  const auto slot = static_cast<int32_t>(blockIdx.y);
  const int32_t place = first_place + slot;
  RowState& state = scratch.State(slot);
  if (StageOf(p, place, state) == Stage::kDone) return;
  uint64_t* list = scratch.List(slot);
  ListChunk(SampleRow(p, place), static_cast<int32_t>(blockIdx.x) * kChunk, shared, state, list);
  if (!LastToArrive(scratch.tickets + slot, 1, gridDim.x)) return;
  EndDraw(p, place, list, shared, state);
}

// ---- TokenLogprobs -----------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(kRowThreads, 2)
    TargetLogprobs(TokenLogprobsParams p, SampleScratch scratch, int32_t first_row) {
  __shared__ RawShared shared;
  WaitForPredecessors();
  AllowSuccessors();
  const auto slot = static_cast<int32_t>(blockIdx.y);
  const int32_t i = first_row + slot;
  const float* logits = p.logits + int64_t{i} * p.vocab;
  RowState& state = scratch.State(slot);
  const auto chunk = static_cast<int32_t>(blockIdx.x);
  const int32_t begin = chunk * kChunk;
  RawStatistics(logits, p.vocab, begin, p.num_top, shared, state.part[chunk],
                state.top + chunk * p.num_top);
  if (!LastToArrive(scratch.tickets + slot, 1, gridDim.x)) return;
  SampledToken* out = p.out + i;
  RowStatistics(state, static_cast<int32_t>(gridDim.x), p.num_top, shared, out);
  if (threadIdx.x > 0) return;
  const int32_t target = p.target[i];
  SPIN_DEVICE_CHECK(target >= 0 && target < p.vocab);
  out->token = target;
  out->logprob = LogprobOf(logits[target], state.raw_max, state.raw_log_sum);
}

// ---- Launches ----------------------------------------------------------------------------------------------------

// Calls launch(scratch, first, n) for groups of rows that scratch memory has room for, of about equal size.
template <typename Group>
void ForEachGroup(const Scratch& scratch, int32_t n, int64_t state_bytes, Group launch) {
  constexpr int64_t kAlignment = 256;
  const int64_t stride = RoundUp(state_bytes, kAlignment);
  const int64_t room = std::min(kScratchBytes / stride, kTickets);
  SPIN_CHECK_GT(room, 0);
  const auto groups = static_cast<int32_t>(CeilDiv<int64_t>(n, room));
  for (int32_t i = 0, first = 0; i < groups; ++i) {
    const int32_t rows = CeilDiv(n - first, groups - i);
    launch(SampleScratch{reinterpret_cast<char*>(scratch.partials), stride, scratch.tickets}, first,
           rows);
    first += rows;
  }
}

unsigned NumChunks(int32_t vocab) {
  static_assert(kMaxVocabSize == 1 << kMaxVocabBits);
  SPIN_CHECK(vocab > 0 && vocab <= kMaxVocabSize);
  return static_cast<unsigned>(CeilDiv(vocab, kChunk));
}

}  // namespace

void Sample(const SampleParams& p, const Scratch& scratch, cudaStream_t stream) {
  const unsigned chunks = NumChunks(p.vocab);
  const int64_t bytes = int64_t{sizeof(RowState)} + int64_t{p.vocab} * int64_t{sizeof(uint64_t)};
  ForEachGroup(scratch, p.decode.max_batch, bytes, [&](SampleScratch s, int32_t first, int32_t n) {
    const auto rows = static_cast<unsigned>(n);
    const dim3 grid(chunks, rows), block(kRowThreads);
    Launch(ScanRows, grid, block, 0, stream, p, s, first);
    Launch(CountWeights, grid, block, kCountBytes, stream, p, s, first);
    Launch(DrawTokens, grid, block, sizeof(DrawShared), stream, p, s, first);
  });
}

void TokenLogprobs(const TokenLogprobsParams& p, const Scratch& scratch, cudaStream_t stream) {
  SPIN_CHECK(p.num_top >= 0 && p.num_top <= kMaxLogprobs);
  const unsigned chunks = NumChunks(p.vocab);
  ForEachGroup(scratch, p.n, sizeof(RowState), [&](SampleScratch s, int32_t first, int32_t n) {
    Launch(TargetLogprobs, dim3(chunks, static_cast<unsigned>(n)), dim3(kRowThreads), 0, stream, p,
           s, first);
  });
}

}  // namespace spin::cuda
