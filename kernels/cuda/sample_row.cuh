// One row of logits as the sampling kernels see it: chunks, a CTA each, in registers; adjusted by ban, bias and
// penalties while it is read (the twin of Adjust in kernels/cpu/sample.cc); and what the kernels of one row hand on to
// each other in scratch memory.
#pragma once

#include <cstdint>

#include "common/random.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/weight_table.cuh"
#include "kernels/params.h"

namespace spin::cuda {

constexpr int kElements = 16;  // of a chunk, a thread: four 16-byte loads in flight
constexpr int32_t kChunk = kRowThreads * kElements;
constexpr int32_t kMaxChunks = (1 << kMaxVocabBits) / kChunk;

// ---- Scratch -----------------------------------------------------------------------------------------------------

// What a CTA finds in its chunk.
struct ChunkPart {
  uint64_t best;  // of the adjusted logits
  uint64_t
      raw_best;  // of the model's own; this and the next only where log-probabilities are asked for
  double raw_sum;                 // of exp(x - the chunk's own maximum)
  uint32_t warp_keys[kRowWarps];  // OrderedKey of the greatest adjusted logit of each warp
};

// What is left to do for a row.
enum class Stage : int32_t {
  kDone,     // it has its token
  kDrawing,  // weights are to be counted, then those of the needed buckets listed
  kBounded,  // what may be among the top_k is to be counted and listed
};

// A row on its way through the kernels; `list` follows it, [vocab] entries (weight bits << 32 | id).
struct RowState {
  uint64_t table[kTableSize];
  uint64_t top[kMaxChunks * kMaxLogprobs];  // of the raw logits, chunk by chunk
  ChunkPart part[kMaxChunks];
  uint32_t needed[kTableSize / 32];  // buckets that an answer may lie in
  uint32_t listed;                   // entries of `list`
  Stage stage;
  float max;          // of the adjusted logits
  float least, most;  // bounds of x - max of what is listed, a little too wide
  float raw_max;
  double raw_log_sum;
};

struct SampleScratch {
  char* states;
  int64_t stride;
  uint32_t* tickets;

  __device__ RowState& State(int32_t i) const {
    return *reinterpret_cast<RowState*>(states + i * stride);
  }
  __device__ uint64_t* List(int32_t i) const {
    return reinterpret_cast<uint64_t*>(states + i * stride + sizeof(RowState));
  }
};

// ---- Rows --------------------------------------------------------------------------------------------------------

struct SampleRow {
  __device__ SampleRow(const SampleParams& p, int32_t place)
      : row(p.decode.rows[place]),
        settings(p.sampling[row]),
        logits(p.logits + int64_t{place} * p.vocab),
        vocab(p.vocab),
        generated(p.decode.position[row] + 1 - settings.prompt_tokens) {
    SPIN_DEVICE_CHECK(generated >= 0);
    if (settings.presence_penalty != 0 || settings.frequency_penalty != 0 ||
        settings.repetition_penalty != 1) {
      SPIN_DEVICE_CHECK(p.history != nullptr);
      history = p.history + int64_t{row} * p.vocab;
    }
  }
  __device__ bool draws() const { return settings.temperature > 0; }
  __device__ bool bans() const {
    return generated < settings.min_tokens && settings.num_stop_tokens > 0;
  }
  // In (0, 1].
  __device__ float Uniform() const {
    return UniformOpenClosed(Philox(settings.seed, static_cast<uint64_t>(generated), 0)[0]);
  }

  int32_t row;
  const SamplingRow& settings;
  const float* logits;
  int32_t vocab;
  int32_t generated;            // index of the new token
  uint32_t* history = nullptr;  // of rows with penalties
};

// Index within its chunk of a thread's element k.
__device__ __forceinline__ int32_t OffsetOf(int k) {
  return (k / 4) * (4 * kRowThreads) + 4 * static_cast<int32_t>(threadIdx.x) + k % 4;
}

// The thread's elements of the chunk at `begin`; `fill` past the end. Rows of whole vectors are loaded by vectors.
template <typename Vector, typename T>
__device__ __forceinline__ void LoadChunk(const T* row, int32_t size, int32_t begin, T fill,
                                          T (&v)[kElements]) {
  if (size % 4 == 0) {
    Vector vectors[kElements / 4];
#pragma unroll
    for (int j = 0; j < kElements / 4; ++j) {
      const int32_t at = begin + OffsetOf(4 * j);
      vectors[j] = at < size ? __ldcg(reinterpret_cast<const Vector*>(row + at))
                             : Vector{fill, fill, fill, fill};
    }
#pragma unroll
    for (int j = 0; j < kElements / 4; ++j) {
      v[4 * j] = vectors[j].x;
      v[4 * j + 1] = vectors[j].y;
      v[4 * j + 2] = vectors[j].z;
      v[4 * j + 3] = vectors[j].w;
    }
  } else {
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      const int32_t at = begin + OffsetOf(k);
      v[k] = at < size ? __ldcg(row + at) : fill;
    }
  }
}
// Logits; NaN, which is nothing, past the end.
__device__ __forceinline__ void LoadLogits(const float* row, int32_t vocab, int32_t begin,
                                           float (&x)[kElements]) {
  LoadChunk<float4>(row, vocab, begin, __uint_as_float(0x7fffffffu), x);
}

// Adds the biases of tokens in the chunk, in the order of the list (a token may occur twice). One warp.
__device__ __forceinline__ void AddBiases(const SamplingRow& s, int32_t vocab, int32_t begin,
                                          float* staged) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll 4
  for (int32_t first = 0; first < s.num_bias; first += kWarp) {
    const int32_t i = first + lane;
    const int32_t token = i < s.num_bias ? s.bias_token[i] : -1;
    const float bias = i < s.num_bias ? s.bias[i] : 0.0f;
    SPIN_DEVICE_CHECK(i >= s.num_bias || (token >= 0 && token < vocab));
    const bool here = token >= begin && token < begin + kChunk;
    const unsigned same = __match_any_sync(kAllLanes, here ? token : -1);
    const unsigned turn = here ? __popc(same & ((1u << lane) - 1)) : 0;
    const unsigned turns = __reduce_max_sync(kAllLanes, turn);
    for (unsigned t = 0; t <= turns; ++t) {
      if (here && turn == t) staged[token - begin] = __fadd_rn(staged[token - begin], bias);
      __syncwarp();
    }
  }
}

struct Penalties {
  float repetition, presence, frequency;

  __device__ __forceinline__ float Apply(float x, uint32_t seen) const {
    if (seen == 0) return x;
    if (repetition != 1) x = x > 0 ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
    const uint32_t times = seen & 0x7fffffffu;
    if (times == 0) return x;
    x = __fsub_rn(x, presence);
    return __fsub_rn(x, __fmul_rn(frequency, static_cast<float>(times)));
  }
};

// The thread's logits of the chunk after ban, bias and penalties. All threads of the CTA; `staged` [kChunk] is shared
// memory that nothing else uses meanwhile.
__device__ __forceinline__ void LoadAdjusted(const SampleRow& row, int32_t begin, float* staged,
                                             float (&x)[kElements]) {
  LoadLogits(row.logits, row.vocab, begin, x);
  const SamplingRow& s = row.settings;
  if (row.bans() || s.num_bias > 0) {
#pragma unroll
    for (int k = 0; k < kElements; ++k) staged[OffsetOf(k)] = x[k];
    __syncthreads();
    const int32_t i = static_cast<int32_t>(threadIdx.x);
    if (row.bans() && i < s.num_stop_tokens) {
      const int32_t token = s.stop_tokens[i];
      SPIN_DEVICE_CHECK(token >= 0 && token < row.vocab);
      if (token >= begin && token < begin + kChunk) staged[token - begin] = kNegInf;
    }
    __syncthreads();
    if (threadIdx.x < kWarp) AddBiases(s, row.vocab, begin, staged);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kElements; ++k) x[k] = staged[OffsetOf(k)];
    __syncthreads();
  }
  if (row.history == nullptr) return;
  const Penalties penalties = {s.repetition_penalty, s.presence_penalty, s.frequency_penalty};
  uint32_t seen[kElements];
  LoadChunk<uint4>(row.history, row.vocab, begin, 0u, seen);
#pragma unroll
  for (int k = 0; k < kElements; ++k) x[k] = penalties.Apply(x[k], seen[k]);
}

// ---- Reductions --------------------------------------------------------------------------------------------------

__device__ __forceinline__ uint64_t WarpMax64(uint64_t value) {
  const auto high = static_cast<uint32_t>(value >> 32);
  const uint32_t most = __reduce_max_sync(kAllLanes, high);
  const uint32_t low = high == most ? static_cast<uint32_t>(value) : 0u;
  return (uint64_t{most} << 32) | __reduce_max_sync(kAllLanes, low);
}

// To all threads of the CTA.
__device__ __forceinline__ uint64_t BlockMax(uint64_t value) {
  __shared__ uint64_t warps[kRowWarps];
  value = WarpMax64(value);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = WarpMax64(warps[threadIdx.x % kRowWarps]);
  __syncthreads();
  return value;
}

__device__ __forceinline__ uint64_t BestOf(const float (&x)[kElements], int32_t begin) {
  uint64_t best = 0;
#pragma unroll
  for (int k = 0; k < kElements; ++k) best = max(best, Candidate(x[k], begin + OffsetOf(k)));
  return best;
}

}  // namespace spin::cuda
