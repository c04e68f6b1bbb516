// Quest's summaries: channel-wise maximum, then minimum, of a page's keys after RoPE.
//
// The bounds are elements of the keys themselves, so they are exact in the pages' own type.
#include <algorithm>

#include "common/math.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

template <typename T>
T* SummaryAt(const KvTables& t, int64_t index) {
  return static_cast<T*>(t.summaries) + index * t.geometry.summary_elements;
}

template <typename T>
void Open(T* summary, const T* key, int32_t d) {
  std::copy_n(key, d, summary);
  std::copy_n(key, d, summary + d);
}

template <typename T>
void Extend(T* summary, const T* key, int32_t d) {
  for (int32_t c = 0; c < d; ++c) {
    const float k = ToFloat(key[c]);
    if (k > ToFloat(summary[c])) summary[c] = key[c];
    if (k < ToFloat(summary[d + c])) summary[d + c] = key[c];
  }
}

template <typename T>
void IndexPrefill(const QuestIndexPrefillParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice& slice = p.slices[s];
    const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
    const int32_t pages = CeilDiv(tokens, g.page_tokens);
    SPIN_CHECK(slice.page_begin >= 0 && slice.page_begin + pages <= p.staging.num_pages);
    pool.ParallelFor(int64_t{g.num_kv_heads} * pages, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto head = static_cast<int32_t>(i / pages);
        const auto page = static_cast<int32_t>(i % pages);
        const StreamView stream(t, slice.row, p.layer, head);
        T* summary = SummaryAt<T>(t, stream.Summary(page));
        const int64_t index = int64_t{head} * p.staging.num_pages + slice.page_begin + page;
        const T* keys = static_cast<const T*>(p.staging.pages) + index * g.page_elements();
        const int32_t valid = std::min(g.page_tokens, tokens - page * g.page_tokens);
        Open(summary, keys, g.head_dim);
        for (int32_t k = 1; k < valid; ++k) Extend(summary, keys + g.KeyOffset(k), g.head_dim);
      }
    });
  }
}

template <typename T>
void IndexDecode(const QuestIndexDecodeParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 32, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto place = static_cast<int32_t>(i / g.num_kv_heads);
      const auto head = static_cast<int32_t>(i % g.num_kv_heads);
      const int32_t row = p.decode.rows[place];
      const int32_t position = p.decode.position[row];
      const StreamView stream(t, row, p.layer, head);
      T* summary = SummaryAt<T>(t, stream.Summary(position / g.page_tokens));
      const T* key = reinterpret_cast<const T*>(KeyOf(p.qkv, g, place, head));
      if (position % g.page_tokens == 0) {
        Open(summary, key, g.head_dim);
      } else {
        Extend(summary, key, g.head_dim);
      }
    }
  });
}

}  // namespace

void QuestIndexPrefill(const QuestIndexPrefillParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  g.dtype == DType::kF32 ? IndexPrefill<float>(p, pool) : IndexPrefill<uint16_t>(p, pool);
}

void QuestIndexDecode(const QuestIndexDecodeParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  g.dtype == DType::kF32 ? IndexDecode<float>(p, pool) : IndexDecode<uint16_t>(p, pool);
}

}  // namespace spin::cpu
