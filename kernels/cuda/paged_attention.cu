#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/paged_attention_mma.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRoundTokens = kWarps * kStepTokens;  // a step of every warp of a CTA
constexpr int kCtasPerSm = 2;                       // what launch bounds give the registers for
constexpr int kMaxParts = 128;
constexpr int kBucket = 64;  // up to this batch a row's parts never depend on the bucket

// How a list is cut: `parts` parts of `rounds` rounds each (the last may be shorter). It depends on the number of
// tokens and on constants of the model alone, not on page size, batch or machine, and so do the bits of the result. How
// many of its parts a CTA takes is a matter of schedule.
struct RowParts {
  int rounds;  // of a part
  int parts;
};
__host__ __device__ inline RowParts CutRow(int total_rounds, int max_parts) {
  const int rounds = (total_rounds + max_parts - 1) / max_parts;
  return {rounds, (total_rounds + rounds - 1) / rounds};
}

// Parameters and scratch as the bf16 kernel wants them. A "row" is a (place, KV head).
struct Task {
  const int32_t* num_rows;
  const int32_t* rows;
  const int32_t* position;
  const Bf16* qkv;
  const char* slots;
  const int32_t* page_list;
  const int32_t* list_len;
  Bf16* out;
  float* part_sums;     // [row][part_stride][group][D]
  float2* part_states;  // [row][part_stride][group]: maximum, weight
  uint32_t* tickets;    // [row]
  int32_t max_list;
  int32_t page_shift;
  int32_t num_kv_heads;
  int32_t group;
  int32_t max_parts;
  int32_t part_stride;
  float scale;  // of scores, for exp2
};

template <int D>
constexpr int kSumStride = D + 4;  // floats of a head in shared memory

template <int D>
constexpr size_t StateBytes(int group) {
  return size_t{kWarps} * group * kSumStride<D> * sizeof(float);
}

// Shared memory beside the warps' sums (dynamic: [kWarps][group][kSumStride]).
template <int D>
struct Shared {
  uint4 queries[D / 32][kWarp];
  float maxima[kWarps][kMaxGroup];
  float weights[kWarps][kMaxGroup];
  float part_weights[kMaxGroup][kMaxParts];
  bool last;
};

__device__ __forceinline__ void AddScaled(float4& to, float scale, const float4& x) {
  to.x = fmaf(scale, x.x, to.x);
  to.y = fmaf(scale, x.y, to.y);
  to.z = fmaf(scale, x.z, to.z);
  to.w = fmaf(scale, x.w, to.w);
}

// One CTA's row: what every thread of it knows.
template <int D>
struct Row {
  static constexpr int kColumns = D / 4;  // of 4 dimensions

  __device__ Row(const Task& t, int place, int kv_head)
      : task(t), place(place), kv_head(kv_head), index(place * t.num_kv_heads + kv_head) {
    list = t.page_list + int64_t{index} * t.max_list;
    last_page = t.list_len[index] - 1;
    SPIN_DEVICE_CHECK(0 <= last_page && last_page < t.max_list);
    const int capacity = (last_page + 1) << t.page_shift;
    total_rounds = (capacity + kRoundTokens - 1) / kRoundTokens;
    cut = CutRow(total_rounds, t.max_parts);
  }

  // Waits for the row's position, which nothing before the first scores needs.
  __device__ int NumTokens() const {
    const int in_page = (1 << task.page_shift) - 1;
    return (last_page << task.page_shift) + (task.position[task.rows[place]] & in_page) + 1;
  }

  // Slots of the two runs of the step at `token`. Past the list's end: of its last page, so that they can be read.
  __device__ __forceinline__ int2 Pages(int token) const {
    return {list[min(token >> task.page_shift, last_page)],
            list[min((token + 8) >> task.page_shift, last_page)]};
  }
  __device__ __forceinline__ StepTokens At(int2 pages, int token) const {
    const int in_page = (1 << task.page_shift) - 1;
    const int page_bytes = (4 * D) << task.page_shift;
    return {{task.slots + int64_t{pages.x} * page_bytes + (token & in_page) * (2 * D),
             task.slots + int64_t{pages.y} * page_bytes + ((token + 8) & in_page) * (2 * D)}};
  }

  // The lane's chunks of the group's queries into shared memory.
  __device__ void LoadQueries(Shared<D>& shared, int warp, int lane) const {
    if (warp >= D / 32) return;
    const int head = lane / 4;
    uint4 q = {};
    if (head < task.group) {
      const int64_t heads = int64_t{task.group + 2} * task.num_kv_heads;
      const Bf16* from = task.qkv + (place * heads + kv_head * task.group + head) * D;
      q = reinterpret_cast<const uint4*>(from)[lane % 4 + 4 * warp];
    }
    shared.queries[warp][lane] = q;
  }

  __device__ void StoreOut(int head, int column, float4 x) const {
    const int64_t q_head = int64_t{index} * task.group + head;
    reinterpret_cast<uint2*>(task.out + q_head * D)[column] = {PackBf16(x.x, x.y),
                                                               PackBf16(x.z, x.w)};
  }
  __device__ float4* PartSum(int part, int head) const {
    const int64_t at = (int64_t{index} * task.part_stride + part) * task.group + head;
    return reinterpret_cast<float4*>(task.part_sums + at * D);
  }
  __device__ float2* PartState(int part, int head) const {
    return task.part_states + (int64_t{index} * task.part_stride + part) * task.group + head;
  }

  const Task& task;
  int place, kv_head, index;
  const int32_t* list;
  int last_page;
  int total_rounds;
  RowParts cut;
};

// The warps' states, in order, make the part's: into scratch, or the output when it is the row's only one.
template <int D>
__device__ void FinishPart(const Row<D>& row, int part, const Shared<D>& shared,
                           const float* sums) {
  const int head = threadIdx.x / Row<D>::kColumns;
  const int column = threadIdx.x % Row<D>::kColumns;
  const int group = row.task.group;
  if (head >= group) return;
  float max = -INFINITY;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) max = fmaxf(max, shared.maxima[w][head]);
  float weight = 0;
  float4 sum = {};
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float scale = exp2f(shared.maxima[w][head] - max);
    weight = fmaf(scale, shared.weights[w][head], weight);
    const float* from = sums + (w * group + head) * kSumStride<D>;
    AddScaled(sum, scale, reinterpret_cast<const float4*>(from)[column]);
  }
  if (row.cut.parts == 1) {
    const float inverse = 1 / weight;
    row.StoreOut(head, column,
                 {sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse});
    return;
  }
  row.PartSum(part, head)[column] = sum;
  if (column == 0) *row.PartState(part, head) = {max, weight};
}

// True in the CTA that is the last of `ctas` to have written its parts of the row; they are visible to it then.
template <int D>
__device__ bool LastOfRow(const Row<D>& row, int ctas, Shared<D>& shared) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    shared.last = atomicAdd(row.task.tickets + row.index, 1) + 1 == ctas;
    if (shared.last) row.task.tickets[row.index] = 0;
    __threadfence();
  }
  __syncthreads();
  return shared.last;
}

// Output = parts, each by its share of the row's weight. Several groups of threads take every so-manieth part, then
// their sums are added in order.
template <int D>
__device__ void MergeParts(const Row<D>& row, Shared<D>& shared, float4* sums) {
  constexpr int kAhead = 8;  // parts in flight a thread
  const int group = row.task.group;
  const int parts = row.cut.parts;
  const int items = group * Row<D>::kColumns;
  const int slices = kThreads / items;
  const int slice = threadIdx.x / items;
  const int item = threadIdx.x % items;
  const int head = item / Row<D>::kColumns;
  const int column = item % Row<D>::kColumns;
  float4 ahead[kAhead];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int part = first + i * slices;
      if (slice < slices && part < parts) ahead[i] = __ldcg(row.PartSum(part, head) + column);
    }
  };
  load(slice);  // before the weights are known

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (warp < group) {
    float2 states[kMaxParts / kWarp];
    float max = -INFINITY;
#pragma unroll
    for (int i = 0; i < kMaxParts / kWarp; ++i) {
      const int part = i * kWarp + lane;
      states[i] = part < parts ? __ldcg(row.PartState(part, warp)) : float2{-INFINITY, 0};
      max = fmaxf(max, states[i].x);
    }
    max = WarpMax(max);
    float weight = 0;
#pragma unroll
    for (int i = 0; i < kMaxParts / kWarp; ++i) {
      states[i].x = exp2f(states[i].x - max);
      weight = fmaf(states[i].x, states[i].y, weight);
    }
    const float inverse = 1 / WarpSum(weight);
#pragma unroll
    for (int i = 0; i < kMaxParts / kWarp; ++i) {
      shared.part_weights[warp][i * kWarp + lane] = states[i].x * inverse;
    }
  }
  __syncthreads();

  float4 sum = {};
  for (int first = slice; slice < slices && first < parts; first += kAhead * slices) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int part = first + i * slices;
      if (part < parts) AddScaled(sum, shared.part_weights[head][part], ahead[i]);
    }
    load(first + kAhead * slices);
  }
  if (slice < slices) sums[threadIdx.x] = sum;
  __syncthreads();
  if (slice != 0) return;
  for (int s = 1; s < slices; ++s) AddScaled(sum, 1, sums[s * items + item]);
  row.StoreOut(head, column, sum);
}

// bf16. A CTA takes an equal share of its row's parts, one after the other; its warps take the 16-token steps of a part
// in turn, each with a softmax of its own.
//
// Floor: bytes of keys and values / bandwidth (4 * D bytes a token; 64 KB a round at D 128). To stay at it, loads must
// never stop: the keys of a warp's next step are requested as soon as the first product has read the present ones, its
// values after the second, also across the ends of parts; and the pages of the step after that are looked up. Two CTAs
// on an SM have up to 128 KB in flight, three times what latency times bandwidth asks for. The arithmetic is a tenth of
// what the SM can issue in the meantime.
template <int D>
__global__ void __launch_bounds__(kThreads, kCtasPerSm) AttendBf16(const Task task) {
  extern __shared__ float4 dynamic[];
  __shared__ Shared<D> shared;
  float* const sums = reinterpret_cast<float*>(dynamic);
  WaitForPredecessors();
  AllowSuccessors();
  const int place = blockIdx.z;
  if (place >= *task.num_rows) return;
  const Row<D> row(task, place, blockIdx.y);
  const int ctas = gridDim.x, parts = row.cut.parts;
  const int part_begin = static_cast<int>(blockIdx.x) * parts / ctas;
  const int part_end = static_cast<int>(blockIdx.x + 1) * parts / ctas;
  if (part_begin == part_end) return;

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t plane_bytes = int64_t{2 * D} << task.page_shift;
  const int token_end = min(part_end * row.cut.rounds, row.total_rounds) * kRoundTokens;
  int token =
      part_begin * row.cut.rounds * kRoundTokens + warp * kStepTokens;  // of the warp's step
  KeyFragment<D> keys;
  ValueFragment<D> values;
  const StepTokens first = row.At(row.Pages(token), token);
  int2 next_pages = row.Pages(token + kRoundTokens);
  keys.Load(first, lane);
  values.Load(first, plane_bytes, lane);
  row.LoadQueries(shared, warp, lane);
  const int num_tokens = row.NumTokens();
  Attention<D> state;

  for (int part = part_begin; part < part_end; ++part) {
    state.Reset();
    __syncthreads();  // queries are there, or nobody reads the last part's sums any more
    const int part_tokens = min((part + 1) * row.cut.rounds * kRoundTokens, token_end);
    for (; token < part_tokens; token += kRoundTokens) {
      const int valid = num_tokens - token;
      if (valid <= 0) continue;
      const int next = token + kRoundTokens;
      const bool more = next < token_end && next < num_tokens;
      float scores[4];
      uint32_t p[2];
      Scores(keys, shared.queries, lane, scores);
      const StepTokens at = row.At(next_pages, next);
      if (more) {
        keys.Load(at, lane);
        next_pages = row.Pages(next + kRoundTokens);
      }
      if (valid < kStepTokens) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (lane / 4 + j / 2 * 8 >= valid) scores[j] = -INFINITY;
        }
        values.Mask(valid, lane);
      }
      state.AddScores(scores, task.scale, p);
      state.AddValues(values, p);
      if (more) values.Load(at, plane_bytes, lane);
    }
    state.Write(sums + warp * task.group * kSumStride<D>, kSumStride<D>, shared.maxima[warp],
                shared.weights[warp], task.group, lane);
    __syncthreads();
    FinishPart(row, part, shared, sums);
  }
  if (parts > 1 && LastOfRow(row, min(parts, ctas), shared)) MergeParts(row, shared, dynamic);
}

// float32, for tests of numerics: a CTA a query head, its warps taking four tokens in turn, nothing past the end read.
template <int D>
__global__ void AttendF32(const PagedAttentionParams p, float scale) {
  constexpr int kTokens = 4;
  constexpr int kDims = D / kWarp;  // a lane's
  __shared__ float sums[kWarps][D];
  __shared__ float maxima[kWarps], weights[kWarps];
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const int place = blockIdx.z, head = blockIdx.y;
  if (place >= NumRows(p.decode)) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t stream = int64_t{place} * g.num_kv_heads + head / g.group();
  const int32_t* list = p.page_list + stream * p.max_list;
  const int pages = p.list_len[stream];
  SPIN_DEVICE_CHECK(0 < pages && pages <= p.max_list);
  const int num_tokens =
      (pages - 1) * g.page_tokens + p.decode.position[p.decode.rows[place]] % g.page_tokens + 1;
  const float* q = static_cast<const float*>(p.qkv) + place * QkvWidth(g) + int64_t{head} * D;
  float query[kDims], sum[kDims] = {}, max = -INFINITY, weight = 0;
#pragma unroll
  for (int c = 0; c < kDims; ++c) query[c] = q[c * kWarp + lane] * scale;

  for (int begin = warp * kTokens; begin < num_tokens; begin += kWarps * kTokens) {
    float score[kTokens], value[kTokens][kDims];
    float now = max;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const int token = begin + t;
      float dot = 0;
#pragma unroll
      for (int c = 0; c < kDims; ++c) value[t][c] = 0;
      if (token < num_tokens) {
        const float* page =
            reinterpret_cast<const float*>(PageAt(p.tables.slots, g, list[token / g.page_tokens]));
#pragma unroll
        for (int c = 0; c < kDims; ++c) {
          const int dim = c * kWarp + lane;
          dot = fmaf(query[c], page[g.KeyOffset(token % g.page_tokens) + dim], dot);
          value[t][c] = page[g.ValueOffset(token % g.page_tokens) + dim];
        }
      }
      dot = WarpSum(dot);
      score[t] = token < num_tokens ? dot : -INFINITY;
      now = fmaxf(now, score[t]);
    }
    const float rescale = expf(max - now);
    max = now;
    weight *= rescale;
#pragma unroll
    for (int c = 0; c < kDims; ++c) sum[c] *= rescale;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float e = expf(score[t] - max);
      weight += e;
#pragma unroll
      for (int c = 0; c < kDims; ++c) sum[c] = fmaf(e, value[t][c], sum[c]);
    }
  }
#pragma unroll
  for (int c = 0; c < kDims; ++c) sums[warp][c * kWarp + lane] = sum[c];
  if (lane == 0) {
    maxima[warp] = max;
    weights[warp] = weight;
  }
  __syncthreads();
  if (threadIdx.x >= D) return;
  for (int w = 0; w < kWarps; ++w) max = w == 0 ? maxima[0] : fmaxf(max, maxima[w]);
  float total = 0, out = 0;
  for (int w = 0; w < kWarps; ++w) {
    const float share = expf(maxima[w] - max);
    total = fmaf(share, weights[w], total);
    out = fmaf(share, sums[w][threadIdx.x], out);
  }
  static_cast<float*>(p.out)[(int64_t{place} * g.num_q_heads + head) * D + threadIdx.x] =
      out / total;
}

template <int D>
void LaunchF32(const PagedAttentionParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const dim3 grid(1, static_cast<unsigned>(g.num_q_heads),
                  static_cast<unsigned>(p.decode.max_batch));
  Launch(AttendF32<D>, grid, kThreads, 0, stream, p, 1 / std::sqrt(static_cast<float>(D)));
}

// Parts that a row of this model may have: about two CTAs an SM for a single sequence, as far as kBucket places have
// room for them in scratch.
int32_t MaxParts(const KvGeometry& g) {
  const int64_t room = kPartialFloats / (int64_t{kBucket} * g.num_q_heads * (g.head_dim + 2));
  const int64_t wanted = std::clamp(256 / g.num_kv_heads, 32, kMaxParts);
  return static_cast<int32_t>(std::max<int64_t>(1, std::min(wanted, room)));
}

// CTAs a row: four waves of them, so that rows of different lengths even out, but no less than four rounds each where
// that still fills the machine once.
int32_t CtasPerRow(int32_t max_rounds, int32_t max_parts, int32_t num_rows) {
  const int32_t slots = kCtasPerSm * Traits().num_sms;
  const int32_t waves = std::min(4 * slots / num_rows, max_rounds / 4);
  const int32_t ctas = std::clamp(std::max(waves, slots / num_rows), 1, max_parts);
  return CeilDiv(max_parts, CeilDiv(max_parts, ctas));
}

template <int D>
void LaunchBf16(const PagedAttentionParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t num_rows = p.decode.max_batch * g.num_kv_heads;
  const int64_t row_floats = int64_t{g.group()} * (D + 2);
  const int32_t max_rounds = CeilDiv(p.max_list * g.page_tokens, kRoundTokens);
  const int64_t room = kPartialFloats / (num_rows * row_floats);
  const auto max_parts = static_cast<int32_t>(std::min<int64_t>(MaxParts(g), room));
  SPIN_CHECK(max_parts >= 1 && num_rows <= kTickets);
  Task task;
  task.num_rows = p.decode.num_rows;
  task.rows = p.decode.rows;
  task.position = p.decode.position;
  task.qkv = static_cast<const Bf16*>(p.qkv);
  task.slots = static_cast<const char*>(p.tables.slots);
  task.page_list = p.page_list;
  task.list_len = p.list_len;
  task.out = static_cast<Bf16*>(p.out);
  task.max_list = p.max_list;
  task.page_shift = std::countr_zero(static_cast<uint32_t>(g.page_tokens));
  task.num_kv_heads = g.num_kv_heads;
  task.group = g.group();
  task.max_parts = max_parts;
  task.part_stride = std::min(max_parts, max_rounds);
  task.part_sums = scratch.partials;
  const int64_t part_heads = int64_t{num_rows} * task.part_stride * g.group();
  task.part_states = reinterpret_cast<float2*>(scratch.partials + part_heads * D);
  task.tickets = scratch.tickets;
  task.scale = 1.44269504f / std::sqrt(static_cast<float>(D));
  const dim3 grid(static_cast<unsigned>(CtasPerRow(max_rounds, task.part_stride, num_rows)),
                  static_cast<unsigned>(g.num_kv_heads), static_cast<unsigned>(p.decode.max_batch));
  Launch(AttendBf16<D>, grid, kThreads, StateBytes<D>(g.group()), stream, task);
}

}  // namespace

void PagedAttention(const PagedAttentionParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK(g.page_tokens >= 8 && g.page_tokens <= kRoundTokens &&
             std::has_single_bit(static_cast<uint32_t>(g.page_tokens)));
  SPIN_CHECK(1 <= g.group() && g.group() <= kMaxGroup);
  if (p.decode.max_batch == 0) return;
  if (g.dtype == DType::kF32) {
    g.head_dim == 64 ? LaunchF32<64>(p, stream) : LaunchF32<128>(p, stream);
  } else {
    g.head_dim == 64 ? LaunchBf16<64>(p, scratch, stream) : LaunchBf16<128>(p, scratch, stream);
  }
}

}  // namespace spin::cuda
