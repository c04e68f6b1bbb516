// How paged attention splits a row over CTAs, and how they make one result of their parts.
//
// A row is a (place, KV head). Its list is cut into parts; a CTA leaves a part's softmax (sum, maximum, weight) in
// scratch; the last CTA of the row to arrive merges all of them in order. Of a list in two halves (ListPart) the first
// leaves its parts for the second to merge.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/paged_attention_mma.cuh"
#include "kernels/params.h"

namespace spin::cuda {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRoundTokens = kWarps * kStepTokens;  // a step of every warp of a CTA
constexpr int kMaxParts = 128;

// How a list is cut: `parts` parts of `rounds` rounds each (the last may be shorter). It depends on the number of
// tokens and on constants of the model alone, not on page size, batch or machine, and so do the bits of the result. How
// many of its parts a CTA takes is a matter of schedule.
struct RowParts {
  int rounds;  // of a part
  int parts;
};
__host__ __device__ inline RowParts CutRow(int total_rounds, int max_parts) {
  if (total_rounds <= max_parts) return {1, total_rounds};
  const int rounds = (total_rounds + max_parts - 1) / max_parts;
  return {rounds, (total_rounds + rounds - 1) / rounds};
}

// CTAs that share a row: no more than are launched for it or than it has parts, and fewer where each would get less
// than kCtaRounds, unless the machine would not be full then.
constexpr int kCtaRounds = 8;
__host__ __device__ inline int CtasOfRow(int total_rounds, int parts, int launched, int to_fill) {
  const int wanted = total_rounds / kCtaRounds < to_fill ? to_fill : total_rounds / kCtaRounds;
  const int most = parts < launched ? parts : launched;
  return wanted < most ? wanted : most;
}

// The first part that CTA `cta` of `ctas` takes, cta * parts / ctas. The half keeps the product with a rounded
// reciprocal on its side of an integer: cta <= ctas, and both they and the parts are at most kMaxParts.
__device__ __forceinline__ int FirstPart(int cta, int parts, int ctas) {
  return static_cast<int>((static_cast<float>(cta * parts) + 0.5f) * __fdividef(1.0f, ctas));
}

// Parameters and scratch as the bf16 kernel wants them. A "row" is a (place, KV head). A launch takes the step's places
// from `first_place` on: arrays begin with that one, num_rows counts the places of the whole step.
struct PagedTask {
  const int32_t* num_rows;
  const int32_t* rows;
  const int32_t* position;
  const Bf16* qkv;
  const char* slots;
  const int32_t* page_list;
  const int32_t* list_len;
  const int32_t* ready_tokens;
  const uint8_t*
      page_mask;          // as page_list; null: all tokens of a page. kMasked only, as is the next
  const float* estimate;  // [row][group][D + 2] to be merged, or null
  Bf16* out;
  float* part_sums;     // [row][part_stride][group][D]
  float2* part_states;  // [row][part_stride][group]: maximum, weight
  uint32_t* tickets;    // [row]
  int32_t first_place;
  int32_t max_list;
  int32_t page_shift;
  int32_t num_kv_heads;
  int32_t group;
  int32_t max_parts;
  int32_t part_stride;
  int32_t ctas_to_fill;  // CTAs a row that fill the machine
  ListPart list_part;
  float scale;  // of scores, for exp2

  __device__ int Rounds(int pages) const {
    return ((pages << page_shift) + kRoundTokens - 1) / kRoundTokens;
  }
};

template <int D>
constexpr int kSumStride = D + 4;  // floats of a head in shared memory

template <int D>
constexpr size_t StateBytes(int group) {
  return size_t{kWarps} * group * kSumStride<D> * sizeof(float);
}

// Shared memory beside the warps' sums (dynamic: [kWarps][group][kSumStride]).
template <int D>
struct CtaState {
  uint4 queries[D / 32][kWarp];
  float maxima[kWarps][kMaxGroup];
  float weights[kWarps][kMaxGroup];
  float part_weights[kMaxGroup][kMaxParts];
  float estimate_weights[kMaxGroup];  // kMasked only
  // Of the row and the CTA; here, not in registers, of which the steps need all.
  int row;
  int parts;        // of the row; of a half, up to its last
  int ctas;         // that share it
  int part_tokens;  // of a part
  int part;         // the CTA's present one
  int part_end;     // of the CTA's
  int limit;        // tokens of SlotList that the CTA takes end here
  bool last;
  // Of half a list:
  int first_page;  // entry of PagedTask::page_list
  int first_part;
  bool finishes;  // the other half is done
};

// threadIdx.x, read anew: what is computed from it here is not carried through the steps in a register.
__device__ __forceinline__ int ThreadHere() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// Adds one to a counter that CTAs share: what they wrote before is seen by the one that reads the result.
__device__ __forceinline__ uint32_t Arrive(uint32_t* counter) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(counter)
               : "memory");
  return before;
}

__device__ __forceinline__ void AddScaled(float4& to, float scale, const float4& x) {
  to.x = fmaf(scale, x.x, to.x);
  to.y = fmaf(scale, x.y, to.y);
  to.z = fmaf(scale, x.z, to.z);
  to.w = fmaf(scale, x.w, to.w);
}

// A head's part of PagedAttentionParams::estimate, or none of it.
template <int D>
struct Estimate {
  static constexpr float kLog2E = 1.44269504f;

  __device__ Estimate(const PagedTask& task, int row, int head)
      : state(task.estimate == nullptr
                  ? nullptr
                  : task.estimate + (int64_t{row} * task.group + head) * (D + 2)) {}
  __device__ float Max() const { return state == nullptr ? -INFINITY : state[D] * kLog2E; }
  __device__ float Weight() const { return state == nullptr ? 0 : state[D + 1]; }
  // Four dimensions, in SumOrder.
  __device__ float4 Sum(int column) const {
    if (state == nullptr) return {};
    return {state[SumOrder<D>(4 * column)], state[SumOrder<D>(4 * column + 1)],
            state[SumOrder<D>(4 * column + 2)], state[SumOrder<D>(4 * column + 3)]};
  }

  const float* state;
};

// Where a row's results go.
template <int D>
struct RowResults {
  static constexpr int kColumns = D / 4;  // of 4 dimensions, in SumOrder

  __device__ void StoreOut(int head, int column, float4 x) const {
    Bf16* const to = task.out + (int64_t{index} * task.group + head) * D;
    to[SumOrder<D>(4 * column)] = FromFloat<Bf16>(x.x);
    to[SumOrder<D>(4 * column + 1)] = FromFloat<Bf16>(x.y);
    to[SumOrder<D>(4 * column + 2)] = FromFloat<Bf16>(x.z);
    to[SumOrder<D>(4 * column + 3)] = FromFloat<Bf16>(x.w);
  }
  __device__ float4* PartSum(int part, int head) const {
    const int64_t at = (int64_t{index} * task.part_stride + part) * task.group + head;
    return reinterpret_cast<float4*>(task.part_sums + at * D);
  }
  __device__ float2* PartState(int part, int head) const {
    return task.part_states + (int64_t{index} * task.part_stride + part) * task.group + head;
  }

  const PagedTask& task;
  int index;
};

// The warps' states, in order, make the part's: into scratch, or the output when it is the row's only one.
template <int D, bool kHalf, bool kMasked>
__device__ void FinishPart(const RowResults<D>& row, int part, const CtaState<D>& shared,
                           const float* sums) {
  const int thread = ThreadHere();
  const int head = thread / RowResults<D>::kColumns;
  const int column = thread % RowResults<D>::kColumns;
  const int group = row.task.group;
  if (head >= group) return;
  float max = -INFINITY;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) max = fmaxf(max, shared.maxima[w][head]);
  float weight = 0;
  float4 sum = {};
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float scale = Exp2(shared.maxima[w][head] - max);
    weight = fmaf(scale, shared.weights[w][head], weight);
    const float* from = sums + (w * group + head) * kSumStride<D>;
    AddScaled(sum, scale, reinterpret_cast<const float4*>(from)[column]);
  }
  if (shared.parts == 1 && (!kHalf || shared.finishes)) {
    if constexpr (kMasked) {
      const Estimate<D> estimate(row.task, row.index, head);
      const float now = fmaxf(max, estimate.Max());
      const float own = Exp2(max - now), other = Exp2(estimate.Max() - now);
      sum = {own * sum.x, own * sum.y, own * sum.z, own * sum.w};
      AddScaled(sum, other, estimate.Sum(column));
      weight = own * weight + other * estimate.Weight();
    }
    const float inverse = 1 / weight;
    row.StoreOut(head, column,
                 {sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse});
    return;
  }
  if (kHalf) part += shared.first_part;
  row.PartSum(part, head)[column] = sum;
  if (column == 0) *row.PartState(part, head) = {max, weight};
}

// True in the last CTA of the row to have written its parts; all are visible to it then.
template <int D>
__device__ bool LastOfRow(const RowResults<D>& row, CtaState<D>& shared) {
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t* const ticket = row.task.tickets + row.index;
    shared.last = shared.ctas == 1 || Arrive(ticket) + 1 == static_cast<uint32_t>(shared.ctas);
    if (shared.last) *ticket = 0;
  }
  __syncthreads();
  return shared.last;
}

// The parts' shares of a row's weight, a head a warp; and the estimate's.
template <int D, bool kMasked>
__device__ __forceinline__ void WeighParts(const RowResults<D>& row, CtaState<D>& shared) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int parts = shared.parts;
  if (warp >= row.task.group) return;
  float2 states[kMaxParts / kWarp];
  float max = -INFINITY;
#pragma unroll
  for (int i = 0; i < kMaxParts / kWarp; ++i) {
    const int part = i * kWarp + lane;
    states[i] = part < parts ? __ldcg(row.PartState(part, warp)) : float2{-INFINITY, 0};
    max = fmaxf(max, states[i].x);
  }
  max = WarpMax(max);
  if constexpr (kMasked) max = fmaxf(max, Estimate<D>(row.task, row.index, warp).Max());
  float weight = 0;
#pragma unroll
  for (int i = 0; i < kMaxParts / kWarp; ++i) {
    states[i].x = Exp2(states[i].x - max);
    weight = fmaf(states[i].x, states[i].y, weight);
  }
  weight = WarpSum(weight);
  float share = 0;  // of the estimate
  if constexpr (kMasked) {
    const Estimate<D> estimate(row.task, row.index, warp);
    share = Exp2(estimate.Max() - max);
    weight = fmaf(share, estimate.Weight(), weight);
  }
  const float inverse = 1 / weight;
  if (kMasked && lane == 0) shared.estimate_weights[warp] = share * inverse;
#pragma unroll
  for (int i = 0; i < kMaxParts / kWarp; ++i) {
    shared.part_weights[warp][i * kWarp + lane] = states[i].x * inverse;
  }
}

// Output = parts, each by its share of the row's weight. Several groups of threads take every so-manieth part, then
// their sums are added in order.
template <int D, bool kMasked>
__device__ void MergeParts(const RowResults<D>& row, CtaState<D>& shared, float4* sums) {
  constexpr int kAhead = 8;  // parts in flight a thread
  const int group = row.task.group;
  const int parts = shared.parts;
  const int items = group * RowResults<D>::kColumns;
  const int slices = kThreads / items;
  const int slice = threadIdx.x / items;
  const int item = threadIdx.x % items;
  const int head = item / RowResults<D>::kColumns;
  const int column = item % RowResults<D>::kColumns;
  float4 ahead[kAhead];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int part = first + i * slices;
      if (slice < slices && part < parts) ahead[i] = __ldcg(row.PartSum(part, head) + column);
    }
  };
  load(slice);  // before the weights are known

  WeighParts<D, kMasked>(row, shared);
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
  if constexpr (kMasked) {
    const Estimate<D> estimate(row.task, row.index, head);
    AddScaled(sum, shared.estimate_weights[head], estimate.Sum(column));
  }
  row.StoreOut(head, column, sum);
}

}  // namespace spin::cuda
