// Scores of partitions from their summaries: products with the queries, softmax over partitions, then the group's
// maximum or sum.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/cpu/cluster_record.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/row_math.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMaxHeads = 4;  // query heads that share one read of the summaries
constexpr int32_t kMaxHeadDim = 128;

// Up to four query heads, scaled, in the shape of a summary: for bounds the positive part [d], then the negative one.
struct Queries {
  alignas(64) float values[kMaxHeads][2 * kMaxHeadDim];
};

// Summaries one after another, the first `size` elements of each are scored.
template <typename T>
struct Summaries {
  const T* first;
  int32_t pitch;  // elements from one to the next
  int32_t size;
  int32_t n;
};

// logits[h * stride + i] = query h times summary i.
template <int kHeads, typename T>
SPIN_INLINE void ScoreHeads(const Queries& q, const Summaries<T>& of, float* logits,
                            int64_t stride) {
  const T* summaries = of.first;
  const int32_t size = of.size;
  for (int32_t i = 0; i < of.n; ++i, summaries += of.pitch) {
    F32x16 sum[kHeads] = {};
    for (int32_t c = 0; c < size; c += kLanes) {
      F32x16 summary;
      LoadLanes(summaries + c, summary);
      for (int h = 0; h < kHeads; ++h) {
        F32x16 query;
        LoadLanes(q.values[h] + c, query);
        sum[h] += query * summary;
      }
    }
    for (int h = 0; h < kHeads; ++h) logits[h * stride + i] = SumLanes(sum[h]);
  }
}

template <typename T>
SPIN_INLINE void ScoreBody(int32_t heads, const Queries& q, const Summaries<T>& of, float* logits,
                           int64_t stride) {
  switch (heads) {
    case 1:
      return ScoreHeads<1>(q, of, logits, stride);
    case 2:
      return ScoreHeads<2>(q, of, logits, stride);
    case 3:
      return ScoreHeads<3>(q, of, logits, stride);
    default:
      return ScoreHeads<4>(q, of, logits, stride);
  }
}

SPIN_MULTI_ISA(void, ScoreF32,
               (int32_t heads, const Queries& q, const Summaries<float>& of, float* logits,
                int64_t stride),
               ScoreBody(heads, q, of, logits, stride), (heads, q, of, logits, stride))
SPIN_MULTI_ISA(void, ScoreBf16,
               (int32_t heads, const Queries& q, const Summaries<uint16_t>& of, float* logits,
                int64_t stride),
               ScoreBody(heads, q, of, logits, stride), (heads, q, of, logits, stride))

template <typename T>
void Score(int32_t heads, const Queries& q, const Summaries<T>& of, float* logits, int64_t stride) {
  if constexpr (std::is_same_v<T, float>) {
    ScoreF32(heads, q, of, logits, stride);
  } else {
    ScoreBf16(heads, q, of, logits, stride);
  }
}

void LoadQuery(const void* qkv, const KvGeometry& g, SummaryKind kind, int64_t element,
               float* query) {
  const int32_t d = g.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  for (int32_t c = 0; c < d; ++c) {
    const float q =
        (g.dtype == DType::kF32 ? static_cast<const float*>(qkv)[element + c]
                                : Bf16ToFloat(static_cast<const uint16_t*>(qkv)[element + c])) *
        scale;
    query[c] = kind == SummaryKind::kBounds ? std::max(q, 0.0f) : q;
    if (kind == SummaryKind::kBounds) query[d + c] = std::min(q, 0.0f);
  }
}

// Reduces softmax(logits of a head)[i] over `heads` heads into out[i], which `first` starts; logits are overwritten. A
// share of NaN (a head without a finite logit) counts for nothing.
void ReduceSoftmax(const ScoreSummariesParams& p, float* logits, int32_t heads, int32_t n,
                   int64_t stride, bool first, float* out) {
  for (int32_t i = 0; i < n && first; ++i) {
    const bool outlier = p.kind == SummaryKind::kMean && std::isnan(logits[i]);
    out[i] = outlier ? std::numeric_limits<float>::infinity() : 0.0f;
  }
  for (int32_t h = 0; h < heads; ++h) {
    float* row = logits + h * stride;
    const float max = RowMax(row, n);
    const auto scale = static_cast<float>(1.0 / RowExpSum(row, n, max, 1.0f, row));
    for (int32_t i = 0; i < n; ++i) {
      const float share = row[i] * scale;
      if (p.reduction == GroupReduction::kSum) {
        out[i] += share > 0 ? share : 0.0f;
      } else if (share > out[i]) {
        out[i] = share;
      }
    }
  }
}

// Partitions of a stream that are scored.
int32_t NumScored(const ScoreSummariesParams& p, int32_t position) {
  if (p.kind == SummaryKind::kClusters) {
    return static_cast<int32_t>(IndexedTokens(int64_t{position} + 1) / kClusterTokens);
  }
  return position / p.tables.geometry.page_tokens + 1 - p.unscored_last;
}

// What clusters without tokens score; their logits are NaN, as is the first element of their centroid.
template <typename T>
void MarkEmptyClusters(const KvTables& t, const StreamView& stream, int32_t clusters,
                       float* scores) {
  for (int32_t i = 0; i < clusters; ++i) {
    if (std::isnan(ToFloat(*ClusterRecordAt<T>(t, stream, i)))) scores[i] = -INFINITY;
  }
}

template <typename T>
void ScoreStream(const ScoreSummariesParams& p, int64_t i) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const auto place = static_cast<int32_t>(i / g.num_kv_heads);
  const auto head = static_cast<int32_t>(i % g.num_kv_heads);
  const int32_t row = p.decode.rows[place];
  const int32_t n = NumScored(p, p.decode.position[row]);
  const int64_t stride = g.max_pages();
  SPIN_CHECK_LE(n, stride);
  if (n <= 0) return;
  const StreamView stream(t, row, p.layer, head);
  const bool clusters = p.kind == SummaryKind::kClusters;
  float* const scores = p.scores + i * stride;

  thread_local std::vector<float> logits;  // [kMaxHeads][max_pages]; grows at first use only
  if (logits.size() < static_cast<size_t>(kMaxHeads * stride)) logits.resize(kMaxHeads * stride);
  const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
  Queries queries;
  for (int32_t done = 0; done < g.group(); done += kMaxHeads) {
    const int32_t heads = std::min(kMaxHeads, g.group() - done);
    for (int32_t h = 0; h < heads; ++h) {
      const int64_t q_head = int64_t{head} * g.group() + done + h;
      LoadQuery(p.qkv, g, p.kind, place * width + q_head * g.head_dim, queries.values[h]);
    }
    for (int32_t begin = 0; begin < n; begin += g.extent_partitions()) {
      const T* first =
          static_cast<const T*>(t.summaries) + stream.Summary(begin) * g.summary_elements;
      const Summaries<T> of = {.first = first,
                               .pitch = g.summary_elements,
                               .size = clusters ? g.head_dim : g.summary_elements - g.key_piece(),
                               .n = std::min(g.extent_partitions(), n - begin)};
      Score(heads, queries, of, logits.data() + begin, stride);
    }
    ReduceSoftmax(p, logits.data(), heads, n, stride, done == 0, scores);
  }
  if (clusters) MarkEmptyClusters<T>(t, stream, n, scores);
}

// Elements of a summary of that kind.
int32_t SummaryElements(SummaryKind kind, int32_t head_dim) {
  switch (kind) {
    case SummaryKind::kBounds:
      return 2 * head_dim;
    case SummaryKind::kMean:
      return head_dim;
    case SummaryKind::kClusters:
      return 2 * head_dim + kClusterTailElements;
  }
  return 0;
}

}  // namespace

void ScoreSummaries(const ScoreSummariesParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim % kLanes == 0 && g.head_dim <= kMaxHeadDim);
  SPIN_CHECK_EQ(g.summary_elements, SummaryElements(p.kind, g.head_dim) + g.key_piece());
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK_GE(p.unscored_last, 0);
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      g.dtype == DType::kF32 ? ScoreStream<float>(p, i) : ScoreStream<uint16_t>(p, i);
    }
  });
}

}  // namespace spin::cpu
