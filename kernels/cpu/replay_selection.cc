// Recorded selections in place of Select's, for measurements.
#include <algorithm>

#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

void ReplayStream(const ReplaySelectionParams& p, int64_t i) {
  const KvGeometry& g = p.geometry;
  const int32_t row = p.decode.rows[i / g.num_kv_heads];
  const int32_t position = p.decode.position[row];
  const auto head = static_cast<int32_t>(i % g.num_kv_heads);
  const int32_t step = (position + p.phase[row]) % p.num_steps;
  const int64_t entry =
      (int64_t{step} * p.num_layers + p.layer % p.num_layers) * p.num_heads + head % p.num_heads;
  const int32_t* recorded = p.recorded + entry * p.max_recorded;
  const int32_t num_recorded = p.recorded_count[entry];
  const int32_t scale = p.pages_per_recorded;
  const int32_t first_of_tail = position / g.page_tokens - scale + 1;
  SPIN_CHECK(num_recorded >= 1 && num_recorded <= p.max_recorded);
  SPIN_CHECK(num_recorded * scale <= p.max_selected && first_of_tail >= 0);
  int32_t* ids = p.ids + i * p.max_selected;
  for (int32_t k = 0; k < num_recorded; ++k) {
    const bool is_tail = k == num_recorded - 1;
    const int32_t first = is_tail ? first_of_tail : recorded[k] * scale;
    SPIN_CHECK(is_tail || first + scale <= first_of_tail);
    for (int32_t j = 0; j < scale; ++j) *ids++ = first + j;
  }
  p.count[i] = num_recorded * scale;
}

}  // namespace

void ReplaySelection(const ReplaySelectionParams& p, ThreadPool& pool) {
  SPIN_CHECK(p.num_steps > 0 && p.num_layers > 0 && p.num_heads > 0 && p.pages_per_recorded > 0);
  const int64_t streams = int64_t{NumRows(p.decode)} * p.geometry.num_kv_heads;
  pool.ParallelFor(streams, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ReplayStream(p, i);
  });
}

}  // namespace spin::cpu
