// SeerAttention-R's scores: the gate's view of the query group, times the summaries.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/families.h"
#include "kernels/cpu/rotate_back.h"
#include "kernels/cpu/seer_gate.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

// qg / sqrt(d) of one stream.
template <typename T>
void GateQuery(const SeerScoreParams& p, int32_t place, int32_t head, int32_t position, float* qg) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t d = g.head_dim;
  const int32_t inputs = g.group() * d;
  thread_local std::vector<float> group;  // grows at first use only
  if (group.size() < static_cast<size_t>(inputs)) group.resize(inputs);
  const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * d;
  const T* q = static_cast<const T*>(p.qkv) + place * width + int64_t{head} * inputs;
  const float* row = p.rope_table + int64_t{position} * d;
  for (int32_t h = 0; h < g.group(); ++h) {
    RotateBack(q + int64_t{h} * d, d, p.rope_table, row, group.data() + int64_t{h} * d);
  }
  GateProducts(static_cast<const T*>(p.gate.wq) + int64_t{head} * d * inputs, d, inputs,
               group.data(), qg);
  NormAndRotate(qg, d, p.gate.q_norm, row);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  for (int32_t c = 0; c < d; ++c) qg[c] *= scale;
}

template <typename T>
void ScoreStream(const SeerScoreParams& p, int32_t place, int32_t head) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int32_t row = p.decode.rows[place];
  const int32_t position = p.decode.position[row];
  const int32_t pages = position / g.page_tokens;
  SPIN_CHECK_LT(pages, g.max_pages());
  if (pages == 0) return;
  const StreamView stream(t, row, p.layer, head);
  float qg[kMaxGateDim];
  GateQuery<T>(p, place, head, position, qg);
  float* scores = p.scores + (int64_t{place} * g.num_kv_heads + head) * g.max_pages();
  for (int32_t begin = 0; begin < pages; begin += g.extent_pages()) {
    const T* summaries =
        static_cast<const T*>(t.summaries) + stream.Summary(begin) * g.summary_elements;
    GateProducts(summaries, std::min(g.extent_pages(), pages - begin), g.head_dim, qg,
                 scores + begin);
  }
}

}  // namespace

void SeerScore(const SeerScoreParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim % 16 == 0 && g.head_dim <= kMaxGateDim);
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(p.gate.wq != nullptr && p.rope_table != nullptr);
  const int32_t rows = NumRows(p.decode);
  // Streams of one head follow each other: they read the same weights.
  pool.ParallelFor(int64_t{rows} * g.num_kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto head = static_cast<int32_t>(i / rows);
      const auto place = static_cast<int32_t>(i % rows);
      g.dtype == DType::kF32 ? ScoreStream<float>(p, place, head)
                             : ScoreStream<uint16_t>(p, place, head);
    }
  });
}

}  // namespace spin::cpu
