// The critical partitions of a stream: the fixed first and last pages, and the best scores between them. One CTA a
// stream; the ids are those of kernels/cpu/select_topk.cc for the same scores.
#include "kernels/cuda/families.h"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/top_scores.cuh"
#include "kernels/softmax_weight.h"

namespace spin::cuda {
namespace {

using top_scores::kThreads;
using top_scores::kWarps;
using top_scores::Lane;
using top_scores::Warp;

// Calls visit(page, score) for this thread's share of pages 0 .. end - 1.
template <typename Visit>
__device__ __forceinline__ void ForEachScore(const float* scores, int32_t end, Visit visit) {
#pragma unroll 4
  for (int32_t page = 4 * static_cast<int32_t>(threadIdx.x); page < end; page += 4 * kThreads) {
    const float4 loaded = *reinterpret_cast<const float4*>(scores + page);
    const float of_page[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (page + i < end) visit(page + i, of_page[i]);
    }
  }
}

// Pages first .. end - 1 whose probability among pages 0 .. end - 1 is above the threshold. Three ways over the scores,
// the later ones out of L1. Whole block.
__device__ __forceinline__ int32_t NumAbove(const float* scores, int32_t first, int32_t end,
                                            double threshold) {
  __shared__ float max_of[kWarps];
  __shared__ unsigned long long sum_of[kWarps];
  __shared__ int32_t above_of[kWarps];
  float max = -INFINITY;
  ForEachScore(scores, end, [&](int32_t, float score) { max = fmaxf(max, score); });
  max = WarpMax(max);
  if (Lane() == 0) max_of[Warp()] = max;
  __syncthreads();
  max = WarpMax(max_of[Lane() % kWarps]);

  unsigned long long sum = 0;
  ForEachScore(scores, end, [&](int32_t, float score) { sum += SoftmaxWeight(score, max); });
  sum = WarpSum(sum);
  if (Lane() == 0) sum_of[Warp()] = sum;
  __syncthreads();
  const uint64_t limit = WeightOfShare(WarpSum(Lane() < kWarps ? sum_of[Lane()] : 0), threshold);

  int32_t above = 0;
  ForEachScore(scores, end, [&](int32_t page, float score) {
    above += page >= first && SoftmaxWeight(score, max) > limit;
  });
  above = __reduce_add_sync(kAllLanes, above);
  if (Lane() == 0) above_of[Warp()] = above;
  __syncthreads();
  return __reduce_add_sync(kAllLanes, Lane() < kWarps ? above_of[Lane()] : 0);
}

// Scores are read once, up to 8,192 of a stream, and stay in registers (longer streams are read again for each pass).
// What is left is latency: the way to the first score, three barriers a digit, three digits as a rule (one of
// them of the maxima, an atomic a thread), and the compaction.
template <bool kThreshold>
__global__ void __launch_bounds__(kThreads, 2) SelectKernel(const SelectTopKParams p) {
  __shared__ top_scores::Shared shared;
  shared.Clear();
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.geometry;
  const auto place = static_cast<int32_t>(blockIdx.y);
  const int32_t row = LoadNow(p.decode.rows + place);
  if (place >= NumRows(p.decode)) return;
  const int64_t stream = int64_t{place} * g.num_kv_heads + blockIdx.x;
  const int32_t own = p.row_pages == nullptr ? 0 : p.row_pages[row];
  const int32_t last = p.decode.position[row] / g.page_tokens;
  const PageBudget& budget = p.budget;
  SPIN_DEVICE_CHECK(own == 0 || own > budget.fixed());
  int32_t count = min(last + 1, own > 0 ? own : budget.Total(last + 1));
  SPIN_DEVICE_CHECK(last < g.max_pages() && count <= p.max_selected);
  int32_t* ids = p.ids + stream * p.max_selected;
  const bool all = count == last + 1;
  const top_scores::Candidates candidates = {p.scores + stream * g.max_pages(), budget.fixed_first,
                                             last + 1 - budget.fixed_last};
  if (kThreshold && !all) {
    const int32_t above =
        NumAbove(candidates.scores, candidates.first, candidates.end, p.threshold);
    const int32_t spared = max(count - budget.fixed_first - budget.fixed_last - above, 0);
    count -= spared;
    if (threadIdx.x == 0 && spared > 0) {
      atomicAdd(reinterpret_cast<unsigned long long*>(&p.counters[row].spared),
                static_cast<unsigned long long>(spared));
    }
  }
  if (threadIdx.x == 0) p.count[stream] = count;
  const int32_t fixed = all ? count : budget.fixed_first;
  for (auto page = static_cast<int32_t>(threadIdx.x); page < fixed; page += kThreads) {
    ids[page] = page;
  }
  if (all) return;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < budget.fixed_last; i += kThreads) {
    ids[count - 1 - i] = last - i;
  }
  const int32_t best = count - fixed - budget.fixed_last;
  if (best == 0) return;
  top_scores::ForEachTop(candidates, best, shared,
                         [=](int32_t rank, int32_t id) { ids[fixed + rank] = id; });
}

}  // namespace

void SelectTopK(const SelectTopKParams& p, cudaStream_t stream) {
  const PageBudget& budget = p.budget;
  SPIN_CHECK(budget.fixed_first >= 0 && budget.fixed_last >= 1 && budget.Selectable(0) >= 0);
  SPIN_CHECK(p.threshold >= 0 && p.threshold <= 1);
  SPIN_CHECK(p.threshold == 0 || (budget.outliers == 0 && p.counters != nullptr));
  SPIN_CHECK_EQ(p.geometry.max_pages() % 4, 0);
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(p.geometry.num_kv_heads),
                  static_cast<unsigned>(p.decode.max_batch));
  Launch(p.threshold > 0 ? SelectKernel<true> : SelectKernel<false>, grid, dim3(kThreads), 0,
         stream, p);
}

}  // namespace spin::cuda
