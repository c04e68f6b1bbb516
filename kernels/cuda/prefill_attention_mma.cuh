// Prefill attention in bfloat16 on tensor cores (mma.sync, sm_80 on), in the manner of FlashAttention-2 (arXiv
// 2307.08691).
//
// A CTA of 4 warps takes a tile of tokens of one query head; each warp has 16 or 32 of them as its rows and meets every
// key. Blocks of 64 keys and of their values come by cp.async through a ring of shared-memory slots in the order K0,
// V0, K1, V1, ..; a slot is filled again as soon as all warps have left it. Weights go from the accumulators of the
// scores into the second product without leaving registers.
//
// Shared rows are d elements; the 16-byte chunk c of row r lies at place c ^ (r % 8), so that neither the copies nor
// ldmatrix (8 rows, one chunk) meet bank conflicts.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/prefill_runs.cuh"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/params.h"

namespace spin::cuda {
namespace {

template <int kHeadDim, int kBlocks, int kRingSlots>
struct MmaTiling {
  static constexpr int kDim = kHeadDim;
  static constexpr int kRowBlocks = kBlocks;  // of 16 rows a warp
  static constexpr int kRing = kRingSlots;    // 2 or 4
  static constexpr int kWarps = 4;
  static constexpr int kCtasPerSm = 2;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kQueries = kWarps * kRowBlocks * 16;
  static constexpr int kKeys = 64;
  static constexpr int kPitch = kDim * static_cast<int>(sizeof(Bf16));
  static constexpr int kChunks = kPitch / 16;
  static constexpr int kCopyRows = kThreads / kChunks;  // rows that one copy of all threads covers
  static constexpr int kTileBytes = kKeys * kPitch;
  static constexpr int kQueryBytes = kQueries * kPitch;
  static constexpr int kSharedBytes = kQueryBytes + kRing * kTileBytes;
  static_assert(kCopyRows % 8 == 0, "a thread's chunk must have one place in all its rows");
};

// What a thread keeps of its rows: rows lane / 4 and lane / 4 + 8 of each block of 16; two columns of each 8.
template <class T>
struct RowState {
  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        max[b][h] = -INFINITY;
        sum[b][h] = 0;
      }
#pragma unroll
      for (int n = 0; n < T::kDim / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[b][n][i] = 0;
      }
    }
  }

  float out[T::kRowBlocks][T::kDim / 8][4];  // sums of weighted values, to be divided by `sum`
  float max[T::kRowBlocks][2];               // of the scores so far, unscaled
  float sum[T::kRowBlocks][2];               // of the weights, of this thread's columns only
};

// Where this lane points ldmatrix to. The XOR of a later step's chunk goes on top: rows are aligned to kPitch.
template <class T>
struct LanePlaces {
  __device__ explicit LanePlaces(int lane)
      : rows(static_cast<uint32_t>((lane & 15) * T::kPitch + (((lane >> 4) ^ (lane & 7)) << 4))),
        keys(static_cast<uint32_t>(((lane & 7) + ((lane >> 4) << 3)) * T::kPitch +
                                   ((((lane >> 3) & 1) ^ (lane & 7)) << 4))) {}

  uint32_t rows;  // rows 0-7, 8-15, then the same of the next chunk: queries, and values transposed
  uint32_t keys;  // keys 0-7, their next chunk, then keys 8-15 likewise
};

// The keys and values of one run, in blocks.
template <class T>
class KeyBlocks {
 public:
  // `keys` is the run's first key, its value lies `plane_bytes` further.
  __device__ KeyBlocks(const char* keys, int64_t plane_bytes, const Run& run, uint32_t ring)
      : plane_bytes_(plane_bytes), count_((run.last_key - run.first_key) / T::kKeys + 1) {
    const int row = static_cast<int>(threadIdx.x) / T::kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % T::kChunks;
    from_ = keys + threadIdx.x * 16;  // tokens are contiguous
    to_ = ring + static_cast<uint32_t>(row * T::kPitch + ((chunk ^ (row & 7)) << 4));
    rows_left_ = run.last_key - run.first_key + 1 - row;
  }

  __device__ int count() const { return count_; }

  // Enqueues the copy of a block, if there is one, as one group. Rows past the run's last key become zeros: what lies
  // there may be NaN, and the weight 0 would not remove it.
  __device__ __forceinline__ void Load(int block, int values) const {
    if (block < count_) {
      const char* from = from_ + (values != 0 ? plane_bytes_ : 0) + int64_t{block} * T::kTileBytes;
      const uint32_t to = to_ + static_cast<uint32_t>(Slot(block, values));
      const int left = rows_left_ - block * T::kKeys;
#pragma unroll
      for (int r = 0; r < T::kKeys; r += T::kCopyRows) {
        CopyChunk(to + r * T::kPitch, from + r * T::kPitch, r < left);
      }
    }
    CommitCopies();
  }

  // Offset in the ring of block K or V.
  static __device__ __forceinline__ int Slot(int block, int values) {
    return (2 * block + values) % T::kRing * T::kTileBytes;
  }

 private:
  const char* from_;
  int64_t plane_bytes_;
  uint32_t to_;
  int rows_left_;
  int count_;
};

// scores = queries keys^T. Both addresses with the lane's place in them.
template <class T>
__device__ __forceinline__ void Scores(uint32_t queries, uint32_t keys,
                                       float (&scores)[T::kRowBlocks][T::kKeys / 8][4]) {
#pragma unroll
  for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
    for (int n = 0; n < T::kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[b][n][i] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < T::kDim / 16; ++k) {
    uint32_t q[T::kRowBlocks][4];
#pragma unroll
    for (int b = 0; b < T::kRowBlocks; ++b) {
      LoadMatrices(q[b], (queries ^ (k * 32)) + b * 16 * T::kPitch);
    }
#pragma unroll
    for (int n = 0; n < T::kKeys / 16; ++n) {
      uint32_t key[4];
      LoadMatrices(key, (keys ^ (k * 32)) + n * 16 * T::kPitch);
#pragma unroll
      for (int b = 0; b < T::kRowBlocks; ++b) {
        Multiply(scores[b][2 * n], q[b], key[0], key[1]);
        Multiply(scores[b][2 * n + 1], q[b], key[2], key[3]);
      }
    }
  }
}

// Selects -infinity for keys past the row's last. `last_key` and `block_begin` count from the run's first key.
template <class T>
__device__ __forceinline__ void Mask(const int32_t (&last_key)[T::kRowBlocks][2], int block_begin,
                                     float (&scores)[T::kRowBlocks][T::kKeys / 8][4]) {
  const int column = block_begin + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int last = last_key[b][i / 2] - column;
#pragma unroll
      for (int n = 0; n < T::kKeys / 8; ++n) {
        scores[b][n][i] = n * 8 + i % 2 <= last ? scores[b][n][i] : -INFINITY;
      }
    }
  }
}

// Takes the block's maxima into the state and rescales what was summed under the old ones. Returns in `offset` what an
// exponent subtracts. A row that has seen nothing yet keeps its -infinity and subtracts 0.
template <class T>
__device__ __forceinline__ void RaiseMaxima(const float (&scores)[T::kRowBlocks][T::kKeys / 8][4],
                                            float scale, RowState<T>& state,
                                            float (&offset)[T::kRowBlocks][2]) {
  float rescale[T::kRowBlocks][2];
  bool changed = false;
#pragma unroll
  for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float best = state.max[b][h];
#pragma unroll
      for (int n = 0; n < T::kKeys / 8; ++n) {
        best = fmaxf(best, fmaxf(scores[b][n][2 * h], scores[b][n][2 * h + 1]));
      }
      best = fmaxf(best, __shfl_xor_sync(kAllLanes, best, 1));
      best = fmaxf(best, __shfl_xor_sync(kAllLanes, best, 2));
      const float finite = best == -INFINITY ? 0.0f : best;
      rescale[b][h] = Exp2((state.max[b][h] - finite) * scale);
      changed |= best != state.max[b][h];
      offset[b][h] = finite * scale;
      state.max[b][h] = best;
    }
  }
  // Late in a long row maxima seldom move. Where none of the warp's did, every factor is 1 or has zeros to multiply.
  if (!__any_sync(kAllLanes, changed)) return;
#pragma unroll
  for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      state.sum[b][h] = __fmul_rn(state.sum[b][h], rescale[b][h]);  // never part of an fma
#pragma unroll
      for (int n = 0; n < T::kDim / 8; ++n) {
        state.out[b][n][2 * h] *= rescale[b][h];
        state.out[b][n][2 * h + 1] *= rescale[b][h];
      }
    }
  }
}

// out += weights values, 16 keys a step; weight = 2^(score * scale - offset).
template <class T>
__device__ __forceinline__ void AddValues(const float (&scores)[T::kRowBlocks][T::kKeys / 8][4],
                                          const float (&offset)[T::kRowBlocks][2], float scale,
                                          uint32_t values, RowState<T>& state) {
#pragma unroll
  for (int k = 0; k < T::kKeys / 16; ++k) {
    // The accumulators of two 16 x 8 products are, pair by pair, the operand of one 16 x 16.
    uint32_t weights[T::kRowBlocks][4];
#pragma unroll
    for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int h = i % 2;
        const float(&s)[4] = scores[b][2 * k + i / 2];
        const float low = Exp2(fmaf(s[2 * h], scale, -offset[b][h]));
        const float high = Exp2(fmaf(s[2 * h + 1], scale, -offset[b][h]));
        state.sum[b][h] = __fadd_rn(state.sum[b][h], __fadd_rn(low, high));
        weights[b][i] = PackBf16(low, high);
      }
    }
#pragma unroll
    for (int n = 0; n < T::kDim / 16; ++n) {
      uint32_t value[4];
      LoadTransposed(value, (values ^ (n * 32)) + k * 16 * T::kPitch);
#pragma unroll
      for (int b = 0; b < T::kRowBlocks; ++b) {
        Multiply(state.out[b][2 * n], weights[b], value[0], value[1]);
        Multiply(state.out[b][2 * n + 1], weights[b], value[2], value[3]);
      }
    }
  }
}

// All keys of one run. `last_key` of this thread's rows counts from the run's first key, -1: not of this run.
template <class T>
__device__ __forceinline__ void AttendRun(const KeyBlocks<T>& blocks,
                                          const int32_t (&last_key)[T::kRowBlocks][2],
                                          uint32_t queries, uint32_t ring, float scale,
                                          RowState<T>& state) {
  int32_t lowest = last_key[0][0], highest = last_key[0][0];
#pragma unroll
  for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      lowest = min(lowest, last_key[b][h]);
      highest = max(highest, last_key[b][h]);
    }
  }
  lowest = __reduce_min_sync(kAllLanes, lowest);
  highest = __reduce_max_sync(kAllLanes, highest);

  const LanePlaces<T> places(static_cast<int>(threadIdx.x) % kWarp);
#pragma unroll
  for (int t = 0; t < T::kRing - 1; ++t) blocks.Load(t / 2, t % 2);
#pragma unroll 1
  for (int block = 0; block < blocks.count(); ++block) {
    const int begin = block * T::kKeys;
    const bool seen = begin <= highest;  // by any row of this warp
    float scores[T::kRowBlocks][T::kKeys / 8][4];
    WaitCopies<T::kRing - 2>();
    __syncthreads();  // keys are there, and nobody reads the values before them
    blocks.Load(block + T::kRing / 2 - 1, 1);
    if (seen) {
      Scores<T>(queries + places.rows, ring + KeyBlocks<T>::Slot(block, 0) + places.keys, scores);
    }
    WaitCopies<T::kRing - 2>();
    __syncthreads();  // values are there, and nobody reads the keys
    blocks.Load(block + T::kRing / 2, 0);
    if (seen) {
      if (begin + T::kKeys - 1 > lowest) Mask<T>(last_key, begin, scores);
      float offset[T::kRowBlocks][2];
      RaiseMaxima<T>(scores, scale, state, offset);
      AddValues<T>(scores, offset, scale, ring + KeyBlocks<T>::Slot(block, 1) + places.rows, state);
    }
  }
}

// Divides and writes the warp's rows, through its own query rows in shared memory: whole lines of 16-byte stores.
template <class T>
__device__ __forceinline__ void StoreRows(const RowState<T>& state, unsigned char* queries,
                                          int warp_row, int count, char* out, int64_t out_pitch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  __syncwarp();
#pragma unroll
  for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = state.sum[b][h];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const float inverse = 1.0f / sum;
      const int row = warp_row + b * 16 + h * 8 + lane / 4;
#pragma unroll
      for (int n = 0; n < T::kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(queries + row * T::kPitch + ((n ^ (row & 7)) << 4) +
                                     lane % 4 * 4) =
            PackBf16(state.out[b][n][2 * h] * inverse, state.out[b][n][2 * h + 1] * inverse);
      }
    }
  }
  __syncwarp();
  constexpr int kRowsAtOnce = kWarp / T::kChunks;
  const int chunk = lane % T::kChunks;
#pragma unroll 4
  for (int r = lane / T::kChunks; r < T::kRowBlocks * 16; r += kRowsAtOnce) {
    const int row = warp_row + r;
    if (row >= count) break;
    *reinterpret_cast<uint4*>(out + row * out_pitch + chunk * 16) =
        *reinterpret_cast<const uint4*>(queries + row * T::kPitch + ((chunk ^ (row & 7)) << 4));
  }
}

// What this CTA does. Read anew at each use, by way of volatile: nothing of it is worth a register during the loops.
template <class T>
struct TilePlace {
  __device__ __forceinline__ explicit TilePlace(const PrefillAttentionParams& p) {
    int cta, ctas;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(cta));
    asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(ctas));
    const int heads = p.geometry.num_q_heads;
    head = cta % heads;
    token_begin = int64_t{ctas / heads - 1 - cta / heads} * T::kQueries;
    count = static_cast<int>(min(int64_t{T::kQueries}, p.n - token_begin));
  }

  int head;
  int64_t token_begin;
  int count;  // tokens
};

// The tile's queries into shared memory, one group of copies; zeros past the last token.
template <class T>
__device__ __forceinline__ void LoadQueries(const PrefillAttentionParams& p,
                                            const TilePlace<T>& place, uint32_t queries) {
  const int row = static_cast<int>(threadIdx.x) / T::kChunks;
  const int chunk = static_cast<int>(threadIdx.x) % T::kChunks;
  const int64_t pitch = QkvWidth(p.geometry) * int64_t{sizeof(Bf16)};
  const char* from = static_cast<const char*>(p.qkv) + (place.token_begin + row) * pitch +
                     place.head * T::kPitch + chunk * 16;
  const uint32_t to = queries + row * T::kPitch + ((chunk ^ (row & 7)) << 4);
#pragma unroll
  for (int r = 0; r < T::kQueries; r += T::kCopyRows) {
    CopyChunk(to + r * T::kPitch, from + r * pitch, row + r < place.count);
  }
  CommitCopies();
}

// One tile of tokens of one query head. Late tiles, which see most keys, come first in the grid; within a tile the
// heads of one KV head are neighbours, and the tiles in flight walk the same keys at about the same time: each block
// comes from HBM once for all of them.
//
// Bound by the tensor cores through mma.sync, on Hopper about 0.62 of their wgmma rate: 620 TFLOP/s. A block of 64 keys
// costs a warp of 32 rows 256 mma (1,640 cycles), 64 exponentials a lane (512 cycles of the special function unit) and
// about 500 other instructions; one of the two CTAs of an SM computes weights while the other multiplies. 80 ldmatrix
// keep shared memory busy for 0.8 of the tensor cores' time, with 16 rows a warp they would for more than all of it.
// Kernels of this kind reach 330 to 360 TFLOP/s.
template <class T>
__global__ void __launch_bounds__(T::kThreads, T::kCtasPerSm)
    AttendMma(const PrefillAttentionParams p, const float scale) {
  extern __shared__ __align__(1024) unsigned char shared[];
  __shared__ TileTokens<T::kQueries> tokens;
  __shared__ int
      run_end[T::kThreads];  // each thread's own, where the loops leave no register for it
  const uint32_t queries = SharedAddress(shared);
  const uint32_t ring = queries + T::kQueryBytes;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * T::kRowBlocks * 16;
  WaitForPredecessors();
  {
    const TilePlace<T> place(p);
    LoadQueries<T>(p, place, queries);
    tokens.Load(p, place.token_begin, place.count);
  }
  __syncthreads();

  RowState<T> state;
  state.Clear();
#pragma unroll 1
  for (int begin = 0; begin < TilePlace<T>(p).count;) {
    const TilePlace<T> place(p);
    const Run run = FindRun(tokens, begin, place.count);
    if constexpr (T::kDim == 64) run_end[threadIdx.x] = run.end;
    int32_t last_key[T::kRowBlocks][2];
#pragma unroll
    for (int b = 0; b < T::kRowBlocks; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = warp_row + b * 16 + h * 8 + static_cast<int>(threadIdx.x) % kWarp / 4;
        last_key[b][h] = LastKeyInRun(tokens, run, row);
      }
    }
    const StagingView staging(p.staging, p.geometry);
    const KeyBlocks<T> blocks(staging.Key(place.head / p.geometry.group(), run.first_key),
                              staging.plane_bytes, run, ring);
    AttendRun<T>(blocks, last_key, queries + warp_row * T::kPitch, ring, scale, state);
    __syncthreads();  // the next run fills slots that others may still read
    begin = T::kDim == 64 ? run_end[threadIdx.x] : run.end;
  }
  AllowSuccessors();
  const TilePlace<T> place(p);
  const int64_t out_pitch = int64_t{p.geometry.num_q_heads} * T::kPitch;
  StoreRows<T>(state, shared, warp_row, place.count,
               static_cast<char*>(p.out) + place.token_begin * out_pitch + place.head * T::kPitch,
               out_pitch);
}

}  // namespace
}  // namespace spin::cuda
