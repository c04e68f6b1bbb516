// The critical partitions of a stream: the fixed first and last pages, and the best scores between them.
#include <algorithm>
#include <atomic>
#include <limits>

#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"
#include "kernels/cpu/top_scores.h"
#include "kernels/softmax_weight.h"

namespace spin::cpu {
namespace {

// Pages first .. end - 1 whose probability among pages 0 .. end - 1 is above the threshold.
int32_t NumAbove(const float* scores, int32_t first, int32_t end, double threshold) {
  float max = -std::numeric_limits<float>::infinity();
  for (int32_t page = 0; page < end; ++page) max = std::max(max, scores[page]);  // never NaN
  uint64_t sum = 0;
  for (int32_t page = 0; page < end; ++page) sum += SoftmaxWeight(scores[page], max);
  const uint64_t limit = WeightOfShare(sum, threshold);
  return static_cast<int32_t>(std::count_if(
      scores + first, scores + end, [=](float s) { return SoftmaxWeight(s, max) > limit; }));
}

}  // namespace

void SelectTopK(const SelectTopKParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.geometry;
  const PageBudget& budget = p.budget;
  SPIN_CHECK(budget.fixed_first >= 0 && budget.fixed_last >= 1 && budget.Selectable(0) >= 0);
  SPIN_CHECK(p.threshold >= 0 && p.threshold <= 1);
  SPIN_CHECK(p.threshold == 0 || (budget.outliers == 0 && p.counters != nullptr));
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t row = p.decode.rows[i / g.num_kv_heads];
      const int32_t last = p.decode.position[row] / g.page_tokens;
      const int32_t own = p.row_pages == nullptr ? 0 : p.row_pages[row];
      SPIN_CHECK(own == 0 || own > budget.fixed());
      const int32_t count = std::min(last + 1, own > 0 ? own : budget.Total(last + 1));
      SPIN_CHECK(last < g.max_pages() && count <= p.max_selected);
      int32_t* ids = p.ids + i * p.max_selected;
      p.count[i] = count;
      if (count == last + 1) {
        for (int32_t page = 0; page <= last; ++page) ids[page] = page;
        continue;
      }
      const float* scores = p.scores + i * g.max_pages();
      const int32_t first = budget.fixed_first;
      const int32_t end = last + 1 - budget.fixed_last;  // candidates are first .. end - 1
      for (int32_t page = 0; page < first; ++page) *ids++ = page;
      int32_t best = count - budget.fixed_first - budget.fixed_last;
      if (p.threshold > 0) {
        const int32_t spared = std::max(best - NumAbove(scores, first, end, p.threshold), 0);
        best -= spared;
        p.count[i] -= spared;
        std::atomic_ref(p.counters[row].spared)
            .fetch_add(static_cast<uint64_t>(spared), std::memory_order_relaxed);
      }
      ForEachTop(scores + first, end - first, best, [&](int32_t at) { *ids++ = first + at; });
      for (int32_t page = end; page <= last; ++page) *ids++ = page;
    }
  });
}

}  // namespace spin::cpu
