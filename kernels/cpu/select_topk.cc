// The critical partitions of a stream: the fixed first and last pages, and the best scores between them.
//
// Exact radix selection over ordered keys, 11 + 11 + 10 bits, in place on the scores: no sort and
// no scratch. A key orders as the score does; -0 equals +0, and NaN is below everything, so that a
// broken score is chosen last and never breaks the order.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

uint32_t OrderedKey(float score) {
  if (std::isnan(score)) return 0;
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 + 0 = +0
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

struct Cut {
  uint32_t key = 0;   // everything above is chosen
  int32_t equal = 0;  // and so many equal to it, lowest ids first
};

// The cut that chooses k of n. REQUIRES: 0 < k <= n.
Cut FindCut(const float* scores, int32_t n, int32_t k) {
  std::array<int32_t, 2048> histogram;
  uint32_t prefix = 0;  // leading bits of the cut, found so far
  uint32_t known = 0;   // mask of those bits
  for (const auto& [shift, bits] : {std::array{21, 11}, std::array{10, 11}, std::array{0, 10}}) {
    histogram.fill(0);
    const uint32_t mask = (1u << bits) - 1;
    for (int32_t i = 0; i < n; ++i) {
      const uint32_t key = OrderedKey(scores[i]);
      if ((key & known) == prefix) ++histogram[(key >> shift) & mask];
    }
    uint32_t digit = mask;
    while (histogram[digit] < k) k -= histogram[digit--];
    prefix |= digit << shift;
    known |= mask << shift;
  }
  return {prefix, k};
}

}  // namespace

void SelectTopK(const SelectTopKParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.geometry;
  const PageBudget& budget = p.budget;
  SPIN_CHECK(budget.fixed_first >= 0 && budget.fixed_last >= 1 && budget.Selectable(0) >= 0);
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t row = p.decode.rows[i / g.num_kv_heads];
      const int32_t last = p.decode.position[row] / g.page_tokens;
      const int32_t count = std::min(last + 1, budget.Total(last + 1));
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
      const int32_t best = count - budget.fixed_first - budget.fixed_last;
      if (best > 0) {
        Cut cut = FindCut(scores + first, end - first, best);
        for (int32_t page = first; page < end; ++page) {
          const uint32_t key = OrderedKey(scores[page]);
          if (key > cut.key || (key == cut.key && cut.equal-- > 0)) *ids++ = page;
        }
      }
      for (int32_t page = end; page <= last; ++page) *ids++ = page;
    }
  });
}

}  // namespace spin::cpu
