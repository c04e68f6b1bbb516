// The keys of fetched pages from their factors: what a gather left behind.
#include <atomic>

#include "kernels/cpu/element.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/key_products.h"
#include "kernels/cpu/key_record.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMaxHeadDim = 128;

// The keys of page `page` of a stream, to `keys` [P][d].
template <typename T>
void RebuildPage(const RebuildKeysParams& p, int32_t row, int32_t head, int32_t page, T* keys) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t d = g.head_dim, half = d / 2;
  float factor[kLandmarkTokens * kMaxKeyRank], x[kLandmarkTokens * kMaxHeadDim];
  const KeyRecord<T> record(p.tables, row, p.layer, page);
  for (int32_t i = 0; i < g.page_tokens * g.key_rank; i += 8) {
    const T* run = record.Run(i);
    for (int32_t k = 0; k < 8; ++k) factor[i + k] = ToFloat(run[k]);
  }
  const T* basis = reinterpret_cast<const T*>(BasisAt(p.tables, row, p.layer));
  ExpandPage(factor, basis + int64_t{head} * d * g.key_rank, d, g.key_rank, x);
  for (int32_t t = 0; t < g.page_tokens; ++t, keys += d) {
    const float* angle = p.rope_table + (int64_t{page} * g.page_tokens + t) * d;
    const float* key = x + t * d;
    for (int32_t i = 0; i < half; ++i) {
      keys[i] = FromFloat<T>(key[i] * angle[i] - key[half + i] * angle[half + i]);
      keys[half + i] = FromFloat<T>(key[half + i] * angle[i] + key[i] * angle[half + i]);
    }
  }
}

template <typename T>
void Rebuild(const RebuildKeysParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t row = p.decode.rows[i / g.num_kv_heads];
      const int32_t position = p.decode.position[row];
      const auto head = static_cast<int32_t>(i % g.num_kv_heads);
      uint64_t rebuilt = 0;
      for (int32_t k = 0; k < p.copy_len[i]; ++k) {
        const int32_t slot = p.copy_dst[i * p.max_list + k];
        const int32_t page = t.slot_owner[slot];
        if (!RebuildsKeys(t, row, p.layer, head, page, position, p.list_len[i], p.whole_last)) {
          continue;
        }
        RebuildPage(p, row, head, page, reinterpret_cast<T*>(PageAt(t.slots, g, slot)));
        ++rebuilt;
      }
      std::atomic_ref(p.counters[row].rebuilt).fetch_add(rebuilt, std::memory_order_relaxed);
    }
  });
}

}  // namespace

void RebuildKeys(const RebuildKeysParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(p.whole_last > 0 && g.key_rank > 0 && g.key_rank <= kMaxKeyRank);
  SPIN_CHECK(g.page_tokens == kLandmarkTokens && g.head_dim <= kMaxHeadDim);
  SPIN_CHECK(p.rope_table != nullptr && p.tables.key_basis != nullptr && p.list_len != nullptr);
  g.dtype == DType::kF32 ? Rebuild<float>(p, pool) : Rebuild<uint16_t>(p, pool);
}

}  // namespace spin::cpu
