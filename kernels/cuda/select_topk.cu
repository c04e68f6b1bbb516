// The critical partitions of a stream: the fixed first and last pages, and the best scores between them. One CTA a
// stream; the ids are those of kernels/cpu/select_topk.cc for the same scores.
#include "kernels/cuda/families.h"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/top_scores.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = top_scores::kThreads;

// Scores are read once, up to 8,192 of a stream, and stay in registers (longer streams are read again for each pass).
// What is left is latency: the way to the first score, three barriers a digit, three digits as a rule (one of
// them of the maxima, an atomic a thread), and the compaction.
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
  const int32_t count = min(last + 1, own > 0 ? own : budget.Total(last + 1));
  SPIN_DEVICE_CHECK(last < g.max_pages() && count <= p.max_selected);
  int32_t* ids = p.ids + stream * p.max_selected;
  if (threadIdx.x == 0) p.count[stream] = count;
  const bool all = count == last + 1;
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
  const top_scores::Candidates candidates = {p.scores + stream * g.max_pages(), fixed,
                                             last + 1 - budget.fixed_last};
  top_scores::ForEachTop(candidates, best, shared,
                         [=](int32_t rank, int32_t id) { ids[fixed + rank] = id; });
}

}  // namespace

void SelectTopK(const SelectTopKParams& p, cudaStream_t stream) {
  const PageBudget& budget = p.budget;
  SPIN_CHECK(budget.fixed_first >= 0 && budget.fixed_last >= 1 && budget.Selectable(0) >= 0);
  SPIN_CHECK_EQ(p.geometry.max_pages() % 4, 0);
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(p.geometry.num_kv_heads),
                  static_cast<unsigned>(p.decode.max_batch));
  Launch(SelectKernel, grid, dim3(kThreads), 0, stream, p);
}

}  // namespace spin::cuda
