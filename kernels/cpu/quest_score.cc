// Quest's bound of each page's attention: [q+,q-].[max,min], softmax over pages, maximum over the
// group.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/cpu/families.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/row_math.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMaxHeads = 4;  // query heads that share one read of the summaries
constexpr int32_t kMaxHeadDim = 128;

// The positive and the negative part of up to four query heads, scaled.
struct Queries {
  alignas(64) float positive[kMaxHeads][kMaxHeadDim];
  alignas(64) float negative[kMaxHeads][kMaxHeadDim];
};

SPIN_INLINE void Load(const float* from, F32x16& to) {
  std::memcpy(&to, from, sizeof(to));
}

SPIN_INLINE void Load(const uint16_t* from, F32x16& to) {
  U16x16 half;
  std::memcpy(&half, from, sizeof(half));
  to = (F32x16)(__builtin_convertvector(half, U32x16) << 16);
}

// scores[h * stride + i] = bound of head h and summary i, for n summaries one after another.
template <int kHeads, typename T>
SPIN_INLINE void ScoreHeads(const Queries& q, int32_t d, const T* summaries, int32_t n,
                            float* scores, int64_t stride) {
  for (int32_t i = 0; i < n; ++i, summaries += 2 * d) {
    F32x16 sum[kHeads] = {};
    for (int32_t c = 0; c < d; c += kLanes) {
      F32x16 max, min;
      Load(summaries + c, max);
      Load(summaries + d + c, min);
      for (int h = 0; h < kHeads; ++h) {
        F32x16 positive, negative;
        Load(q.positive[h] + c, positive);
        Load(q.negative[h] + c, negative);
        sum[h] += positive * max + negative * min;
      }
    }
    for (int h = 0; h < kHeads; ++h) {
      F32x8 half[2];
      std::memcpy(half, &sum[h], sizeof(half));
      const F32x8 s = half[0] + half[1];
      scores[h * stride + i] = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
    }
  }
}

template <typename T>
SPIN_INLINE void ScoreBody(int32_t heads, const Queries& q, int32_t d, const T* summaries,
                           int32_t n, float* scores, int64_t stride) {
  switch (heads) {
    case 1:
      return ScoreHeads<1>(q, d, summaries, n, scores, stride);
    case 2:
      return ScoreHeads<2>(q, d, summaries, n, scores, stride);
    case 3:
      return ScoreHeads<3>(q, d, summaries, n, scores, stride);
    default:
      return ScoreHeads<4>(q, d, summaries, n, scores, stride);
  }
}

SPIN_MULTI_ISA(void, ScoreF32,
               (int32_t heads, const Queries& q, int32_t d, const float* summaries, int32_t n,
                float* scores, int64_t stride),
               ScoreBody(heads, q, d, summaries, n, scores, stride),
               (heads, q, d, summaries, n, scores, stride))
SPIN_MULTI_ISA(void, ScoreBf16,
               (int32_t heads, const Queries& q, int32_t d, const uint16_t* summaries, int32_t n,
                float* scores, int64_t stride),
               ScoreBody(heads, q, d, summaries, n, scores, stride),
               (heads, q, d, summaries, n, scores, stride))

template <typename T>
void Score(int32_t heads, const Queries& q, int32_t d, const T* summaries, int32_t n, float* scores,
           int64_t stride) {
  if constexpr (std::is_same_v<T, float>) {
    ScoreF32(heads, q, d, summaries, n, scores, stride);
  } else {
    ScoreBf16(heads, q, d, summaries, n, scores, stride);
  }
}

void LoadQuery(const void* qkv, const KvGeometry& g, int64_t element, float* positive,
               float* negative) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(g.head_dim));
  for (int32_t c = 0; c < g.head_dim; ++c) {
    const float q =
        (g.dtype == DType::kF32 ? static_cast<const float*>(qkv)[element + c]
                                : Bf16ToFloat(static_cast<const uint16_t*>(qkv)[element + c])) *
        scale;
    positive[c] = std::max(q, 0.0f);
    negative[c] = std::min(q, 0.0f);
  }
}

// out[i] = max over heads of softmax(bounds of the head)[i]; the bounds are overwritten.
void SoftmaxMax(float* bounds, int32_t heads, int32_t pages, int64_t stride, bool first,
                float* out) {
  for (int32_t h = 0; h < heads; ++h) {
    float* row = bounds + h * stride;
    const float max = RowMax(row, pages);
    const auto scale = static_cast<float>(1.0 / RowExpSum(row, pages, max, 1.0f, row));
    for (int32_t i = 0; i < pages; ++i) {
      const float share = row[i] * scale;
      out[i] = (first && h == 0) || share > out[i] ? share : out[i];
    }
  }
}

template <typename T>
void ScoreStream(const QuestScoreParams& p, int64_t i) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const auto place = static_cast<int32_t>(i / g.num_kv_heads);
  const auto head = static_cast<int32_t>(i % g.num_kv_heads);
  const int32_t row = p.decode.rows[place];
  const int32_t pages = p.decode.position[row] / g.page_tokens + 1;
  const int64_t stride = g.max_pages();
  SPIN_CHECK_LE(pages, stride);
  const StreamView stream(t, row, p.layer, head);

  thread_local std::vector<float> bounds;  // [kMaxHeads][max_pages]; grows at first use only
  if (bounds.size() < static_cast<size_t>(kMaxHeads * stride)) bounds.resize(kMaxHeads * stride);
  const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
  Queries queries;
  for (int32_t done = 0; done < g.group(); done += kMaxHeads) {
    const int32_t heads = std::min(kMaxHeads, g.group() - done);
    for (int32_t h = 0; h < heads; ++h) {
      const int64_t q_head = int64_t{head} * g.group() + done + h;
      LoadQuery(p.qkv, g, place * width + q_head * g.head_dim, queries.positive[h],
                queries.negative[h]);
    }
    for (int32_t begin = 0; begin < pages; begin += g.extent_pages()) {
      const T* summaries =
          static_cast<const T*>(t.summaries) + stream.Summary(begin) * g.summary_elements;
      Score(heads, queries, g.head_dim, summaries, std::min(g.extent_pages(), pages - begin),
            bounds.data() + begin, stride);
    }
    SoftmaxMax(bounds.data(), heads, pages, stride, done == 0, p.scores + i * stride);
  }
}

}  // namespace

void QuestScore(const QuestScoreParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim % kLanes == 0 && g.head_dim <= kMaxHeadDim);
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      g.dtype == DType::kF32 ? ScoreStream<float>(p, i) : ScoreStream<uint16_t>(p, i);
    }
  });
}

}  // namespace spin::cpu
