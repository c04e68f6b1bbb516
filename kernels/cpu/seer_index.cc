// SeerAttention-R's summaries: the gate's view of a complete page's keys.
#include <algorithm>
#include <type_traits>

#include "kernels/cpu/families.h"
#include "kernels/cpu/rotate_back.h"
#include "kernels/cpu/seer_gate.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

template <typename Params>
void CheckParams(const Params& p) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim % 16 == 0 && g.head_dim <= kMaxGateDim);
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(p.gate.wk != nullptr && p.rope_table != nullptr);
}

// Maximum, minimum and mean, channel by channel, of keys as they were before rotation, one after the other.
class Pool {
 public:
  explicit Pool(int32_t d) : d_(d) {}

  template <typename T>
  void Add(const T* key, const float* rope_table, int64_t position) {
    float x[kMaxGateDim];
    RotateBack(key, d_, rope_table, rope_table + position * d_, x);
    float* max = values_;
    float* min = values_ + d_;
    float* sum = values_ + 2 * d_;
    if (count_++ == 0) {
      for (float* to : {max, min, sum}) std::copy_n(x, d_, to);
      return;
    }
    for (int32_t c = 0; c < d_; ++c) {
      max[c] = std::max(max[c], x[c]);
      min[c] = std::min(min[c], x[c]);
      sum[c] += x[c];
    }
  }

  // [3 d]; no key is added afterwards.
  const float* Finish() {
    for (int32_t c = 0; c < d_; ++c) values_[2 * d_ + c] /= static_cast<float>(count_);
    return values_;
  }

 private:
  int32_t d_;
  int32_t count_ = 0;
  float values_[3 * kMaxGateDim];
};

// The summary of page `page` of KV head `head`: keys at `keys`, but the last at `newest`.
template <typename T, typename Params>
void Summarise(const Params& p, int32_t row, int32_t head, int32_t page, const T* keys,
               const T* newest) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int32_t d = g.head_dim;
  const int64_t begin = int64_t{page} * g.page_tokens;
  Pool pool(d);
  for (int32_t i = 0; i + 1 < g.page_tokens; ++i) {
    pool.Add(keys + g.KeyOffset(i), p.rope_table, begin + i);
  }
  pool.Add(newest, p.rope_table, begin + g.page_tokens - 1);
  float kg[kMaxGateDim];
  GateProducts(static_cast<const T*>(p.gate.wk) + int64_t{head} * d * 3 * d, d, 3 * d,
               pool.Finish(), kg);
  NormAndRotate(kg, d, p.gate.k_norm, p.rope_table + begin * d);
  T* summary = static_cast<T*>(t.summaries) +
               StreamView(t, row, p.layer, head).Summary(page) * g.summary_elements;
  for (int32_t c = 0; c < d; ++c) {
    if constexpr (std::is_same_v<T, float>) {
      summary[c] = kg[c];
    } else {
      summary[c] = FloatToBf16(kg[c]);
    }
  }
}

template <typename T>
void IndexPrefill(const SeerIndexPrefillParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice& slice = p.slices[s];
    const int32_t pages = (slice.prefix_tokens + slice.num_tokens) / g.page_tokens;
    SPIN_CHECK(slice.page_begin >= 0 && slice.page_begin + pages <= p.staging.num_pages);
    pool.ParallelFor(int64_t{g.num_kv_heads} * pages, 2, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto head = static_cast<int32_t>(i / pages);
        const auto page = static_cast<int32_t>(i % pages);
        const int64_t index = int64_t{head} * p.staging.num_pages + slice.page_begin + page;
        const T* keys = static_cast<const T*>(p.staging.pages) + index * g.page_elements();
        Summarise(p, slice.row, head, page, keys, keys + g.KeyOffset(g.page_tokens - 1));
      }
    });
  }
}

template <typename T>
void IndexDecode(const SeerIndexDecodeParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto place = static_cast<int32_t>(i / g.num_kv_heads);
      const auto head = static_cast<int32_t>(i % g.num_kv_heads);
      const int32_t row = p.decode.rows[place];
      const int32_t position = p.decode.position[row];
      if (position % g.page_tokens != g.page_tokens - 1) continue;
      const int32_t page = position / g.page_tokens;
      const char* keys = StreamView(t, row, p.layer, head).PageBytes(page);
      Summarise(p, row, head, page, reinterpret_cast<const T*>(keys),
                reinterpret_cast<const T*>(KeyOf(p.qkv, g, place, head)));
    }
  });
}

}  // namespace

void SeerIndexPrefill(const SeerIndexPrefillParams& p, ThreadPool& pool) {
  CheckParams(p);
  p.tables.geometry.dtype == DType::kF32 ? IndexPrefill<float>(p, pool)
                                         : IndexPrefill<uint16_t>(p, pool);
}

void SeerIndexDecode(const SeerIndexDecodeParams& p, ThreadPool& pool) {
  CheckParams(p);
  p.tables.geometry.dtype == DType::kF32 ? IndexDecode<float>(p, pool)
                                         : IndexDecode<uint16_t>(p, pool);
}

}  // namespace spin::cpu
