// ShadowKV's summaries: the mean of a page's keys, and which pages it stands for so badly that they are always attended
// to.
#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <limits>
#include <type_traits>

#include "common/math.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/stream_view.h"
#include "kernels/cpu/top_scores.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMaxHeadDim = 128;

// The keys of a page as floats, and their sum in token order.
struct PageKeys {
  alignas(64) float key[kLandmarkTokens][kMaxHeadDim];
  alignas(64) float sum[kMaxHeadDim];
};

template <typename T>
void ReadKey(const T* from, int32_t d, float* to) {
  for (int32_t c = 0; c < d; ++c) {
    if constexpr (std::is_same_v<T, float>) {
      to[c] = from[c];
    } else {
      to[c] = Bf16ToFloat(from[c]);
    }
  }
}

void SumKeys(PageKeys& page, int32_t d) {
  std::copy_n(page.key[0], d, page.sum);
  for (int32_t t = 1; t < kLandmarkTokens; ++t) {
    for (int32_t c = 0; c < d; ++c) page.sum[c] += page.key[t][c];
  }
}

template <typename T>
void WriteMean(const float* sum, int32_t d, T* landmark) {
  constexpr float kInverse = 1.0f / kLandmarkTokens;  // a power of two: exact
  for (int32_t c = 0; c < d; ++c) {
    if constexpr (std::is_same_v<T, float>) {
      landmark[c] = sum[c] * kInverse;
    } else {
      landmark[c] = FloatToBf16(sum[c] * kInverse);
    }
  }
}

float Dot(const float* a, const float* b, int32_t d) {
  std::array<float, kLanes> lanes = {};
  for (int32_t c = 0; c < d; c += kLanes) {
    for (int32_t i = 0; i < kLanes; ++i) lanes[i] += a[c + i] * b[c + i];
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// -min over the keys of cosine(key, mean); a zero vector has no direction, its cosine is 0. The greater, the worse does
// the mean stand for the page.
float Spread(const PageKeys& page, int32_t d) {
  const auto inverse_norm = [d](const float* x) {
    return 1.0f / std::sqrt(std::max(Dot(x, x, d), FLT_MIN));
  };
  float least = std::numeric_limits<float>::infinity();
  for (const auto& key : page.key) {
    const float cosine = Dot(key, page.sum, d) * inverse_norm(key);
    if (cosine < least) least = cosine;
  }
  return -least * inverse_norm(page.sum);
}

template <typename T>
T* LandmarkAt(const KvTables& t, const StreamView& stream, int32_t page) {
  return static_cast<T*>(t.summaries) + stream.Summary(page) * t.geometry.summary_elements;
}

template <typename T>
void IndexSlice(const LandmarkIndexPrefillParams& p, const PrefillSlice& slice, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int32_t pages = (slice.prefix_tokens + slice.num_tokens) / kLandmarkTokens;
  SPIN_CHECK(slice.page_begin >= 0 && slice.page_begin + pages <= p.staging.num_pages);
  const int32_t stride = RoundUp(p.staging.num_pages, 4);
  pool.ParallelFor(int64_t{g.num_kv_heads} * pages, 16, [&](int64_t begin, int64_t end) {
    PageKeys keys;
    for (int64_t i = begin; i < end; ++i) {
      const auto head = static_cast<int32_t>(i / pages);
      const auto page = static_cast<int32_t>(i % pages);
      const int64_t index = int64_t{head} * p.staging.num_pages + slice.page_begin + page;
      const T* from = static_cast<const T*>(p.staging.pages) + index * g.page_elements();
      for (int32_t k = 0; k < kLandmarkTokens; ++k) {
        ReadKey(from + g.KeyOffset(k), g.head_dim, keys.key[k]);
      }
      SumKeys(keys, g.head_dim);
      const StreamView stream(t, slice.row, p.layer, head);
      WriteMean(keys.sum, g.head_dim, LandmarkAt<T>(t, stream, page));
      p.spread[int64_t{head} * stride + slice.page_begin + page] = Spread(keys, g.head_dim);
    }
  });
  const int32_t candidates = std::max(pages - p.local_pages, 0);
  const int32_t outliers = std::min(p.outlier_pages, candidates);
  const T mark = std::is_same_v<T, float> ? static_cast<T>(std::numeric_limits<float>::quiet_NaN())
                                          : static_cast<T>(0x7fc0);  // the same in bfloat16
  pool.ParallelFor(g.num_kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      const StreamView stream(t, slice.row, p.layer, static_cast<int32_t>(head));
      ForEachTop(p.spread + head * stride + slice.page_begin, candidates, outliers,
                 [&](int32_t page) { *LandmarkAt<T>(t, stream, page) = mark; });
    }
  });
}

template <typename T>
void IndexDecode(const LandmarkIndexDecodeParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 32, [&](int64_t begin, int64_t end) {
    PageKeys keys;
    for (int64_t i = begin; i < end; ++i) {
      const auto place = static_cast<int32_t>(i / g.num_kv_heads);
      const auto head = static_cast<int32_t>(i % g.num_kv_heads);
      const int32_t row = p.decode.rows[place];
      const int32_t position = p.decode.position[row];
      if (position % kLandmarkTokens != kLandmarkTokens - 1) continue;
      const StreamView stream(t, row, p.layer, head);
      const int32_t page = position / kLandmarkTokens;
      const T* from = reinterpret_cast<const T*>(stream.PageBytes(page));
      for (int32_t k = 0; k < kLandmarkTokens - 1; ++k) {
        ReadKey(from + g.KeyOffset(k), g.head_dim, keys.key[k]);
      }
      ReadKey(reinterpret_cast<const T*>(KeyOf(p.qkv, g, place, head)), g.head_dim,
              keys.key[kLandmarkTokens - 1]);
      SumKeys(keys, g.head_dim);
      WriteMean(keys.sum, g.head_dim, LandmarkAt<T>(t, stream, page));
    }
  });
}

void CheckGeometry(const KvGeometry& g) {
  SPIN_CHECK(g.head_dim % kLanes == 0 && g.head_dim <= kMaxHeadDim);
  SPIN_CHECK_EQ(g.page_tokens, kLandmarkTokens);
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim + g.key_piece());
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
}

}  // namespace

void LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p, ThreadPool& pool) {
  CheckGeometry(p.tables.geometry);
  SPIN_CHECK(p.outlier_pages >= 0 && p.local_pages >= 0 && p.spread != nullptr);
  for (int32_t s = 0; s < p.num_slices; ++s) {
    p.tables.geometry.dtype == DType::kF32 ? IndexSlice<float>(p, p.slices[s], pool)
                                           : IndexSlice<uint16_t>(p, p.slices[s], pool);
  }
}

void LandmarkIndexDecode(const LandmarkIndexDecodeParams& p, ThreadPool& pool) {
  CheckGeometry(p.tables.geometry);
  p.tables.geometry.dtype == DType::kF32 ? IndexDecode<float>(p, pool)
                                         : IndexDecode<uint16_t>(p, pool);
}

}  // namespace spin::cpu
