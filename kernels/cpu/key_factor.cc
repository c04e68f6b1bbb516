// ShadowKV's low-rank keys: the basis of a prompt's keys, and the factors of its pages and of those that decoding
// completes.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/element.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/key_products.h"
#include "kernels/cpu/key_record.h"
#include "kernels/cpu/rotate_back.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMaxHeadDim = 128;
constexpr int32_t kTokensAtOnce =
    64;  // of a Gram matrix; no more than the rank, whose block holds their keys

// In place, rounded to the pages' type.
template <typename T>
void RotateKeyBack(T* key, int32_t d, const float* rope_table, int64_t position) {
  float x[kMaxHeadDim];
  RotateBack(key, d, rope_table, rope_table + position * d, x);
  for (int32_t c = 0; c < d; ++c) key[c] = FromFloat<T>(x[c]);
}

// The sequence's keys in staging.
template <typename T>
class StagedKeys {
 public:
  StagedKeys(const KeyFactorPrefillParams& p, const PrefillSlice& slice)
      : g_(p.tables.geometry),
        pages_(static_cast<T*>(p.staging.pages) + slice.page_begin * g_.page_elements()),
        head_pages_(p.staging.num_pages) {}

  T* Key(int32_t head, int32_t token) const {
    const int64_t page = int64_t{head} * head_pages_ + token / g_.page_tokens;
    return pages_ + page * g_.page_elements() + g_.KeyOffset(token % g_.page_tokens);
  }
  // Keys of all heads of tokens token .. token + n - 1: to [n][Hkv * d].
  void Read(int32_t token, int32_t n, float* to) const {
    for (int32_t t = 0; t < n; ++t) {
      for (int32_t head = 0; head < g_.num_kv_heads; ++head, to += g_.head_dim) {
        const T* key = Key(head, token + t);
        for (int32_t c = 0; c < g_.head_dim; ++c) to[c] = ToFloat(key[c]);
      }
    }
  }

 private:
  const KvGeometry& g_;
  T* pages_;
  int64_t head_pages_;
};

// The factor of a page whose tokens' keys, before rotation, are x [P][Hkv * d].
template <typename T>
void WriteFactor(const KvTables& t, int32_t row, int32_t layer, int32_t page, const float* x) {
  const KvGeometry& g = t.geometry;
  float factor[kLandmarkTokens * kMaxKeyRank];
  ProjectPage(x, reinterpret_cast<const T*>(BasisAt(t, row, layer)), g.key_width(), g.key_rank,
              factor);
  const KeyRecord<T> record(t, row, layer, page);
  for (int32_t i = 0; i < g.page_tokens * g.key_rank; i += 8) {
    T* run = record.Run(i);
    for (int32_t k = 0; k < 8; ++k) run[k] = FromFloat<T>(factor[i + k]);
  }
}

// Sums K^T K of a slice; its keys in staging are as before rotation.
template <typename T>
void SumGram(const KeyFactorPrefillParams& p, const PrefillSlice& slice, int32_t tokens,
             const KeyScratch& scratch, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t width = g.key_width();
  const StagedKeys<T> keys(p, slice);
  std::fill_n(scratch.gram, int64_t{width} * width, 0.0f);
  const int32_t step = std::min(kTokensAtOnce, g.key_rank);
  for (int32_t begin = 0; begin < tokens; begin += step) {
    const int32_t n = std::min(step, tokens - begin);
    keys.Read(begin, n, scratch.z);
    AddGram(scratch.z, n, width, scratch.gram, pool);
  }
}

template <typename T>
void FactorSlice(const KeyFactorPrefillParams& p, const PrefillSlice& slice, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
  const int32_t width = g.key_width();
  T* basis = reinterpret_cast<T*>(BasisAt(p.tables, slice.row, p.layer));
  if (tokens < width) {
    std::memset(basis, 0xff, sizeof(T));  // NaN: none
    return;
  }
  const StagedKeys<T> keys(p, slice);
  pool.ParallelFor(int64_t{tokens} * g.num_kv_heads, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto token = static_cast<int32_t>(i / g.num_kv_heads);
      RotateKeyBack(keys.Key(static_cast<int32_t>(i % g.num_kv_heads), token), g.head_dim,
                    p.rope_table, token);
    }
  });
  const KeyScratch scratch(p.scratch, width, g.key_rank);
  SumGram<T>(p, slice, tokens, scratch, pool);
  FindSubspace(scratch, width, g.key_rank, pool);
  for (int64_t i = 0; i < g.key_basis_elements(); ++i) basis[i] = FromFloat<T>(scratch.q[i]);
  pool.ParallelFor(tokens / g.page_tokens, 1, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> x;  // grows at first use only
    x.resize(static_cast<size_t>(g.page_tokens) * width);
    for (int64_t page = begin; page < end; ++page) {
      keys.Read(static_cast<int32_t>(page) * g.page_tokens, g.page_tokens, x.data());
      WriteFactor<T>(p.tables, slice.row, p.layer, static_cast<int32_t>(page), x.data());
    }
  });
}

// The keys of head `head` of the page that batch place `place` completes, as before rotation: to[t * width + c].
template <typename T>
void ReadHead(const KeyFactorDecodeParams& p, int32_t place, int32_t head, int32_t page,
              float* to) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t row = p.decode.rows[place];
  const T* keys =
      reinterpret_cast<const T*>(StreamView(p.tables, row, p.layer, head).PageBytes(page));
  for (int32_t t = 0; t < g.page_tokens; ++t, to += g.key_width()) {
    const T* key = t + 1 < g.page_tokens ? keys + g.KeyOffset(t)
                                         : reinterpret_cast<const T*>(KeyOf(p.qkv, g, place, head));
    T rotated[kMaxHeadDim];
    std::copy_n(key, g.head_dim, rotated);
    RotateKeyBack(rotated, g.head_dim, p.rope_table, int64_t{page} * g.page_tokens + t);
    for (int32_t c = 0; c < g.head_dim; ++c) to[c] = ToFloat(rotated[c]);
  }
}

template <typename T>
void IndexDecode(const KeyFactorDecodeParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  pool.ParallelFor(NumRows(p.decode), 1, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> x;
    x.resize(static_cast<size_t>(g.page_tokens) * g.key_width());
    for (auto place = static_cast<int32_t>(begin); place < end; ++place) {
      const int32_t row = p.decode.rows[place];
      const int32_t position = p.decode.position[row];
      if (position % g.page_tokens != g.page_tokens - 1) continue;
      if (!HasBasis(p.tables, row, p.layer)) continue;
      const int32_t page = position / g.page_tokens;
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        ReadHead<T>(p, place, head, page, x.data() + head * g.head_dim);
      }
      WriteFactor<T>(p.tables, row, p.layer, page, x.data());
    }
  });
}

template <typename Params>
void CheckParams(const Params& p) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim % 16 == 0 && g.head_dim <= kMaxHeadDim);
  SPIN_CHECK_EQ(g.page_tokens, kLandmarkTokens);
  SPIN_CHECK(g.key_rank > 0 && g.key_rank % kKeyRankStep == 0);
  SPIN_CHECK(g.key_rank <= kMaxKeyRank && g.key_rank <= g.key_width());
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim + g.key_piece());
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(p.rope_table != nullptr && p.tables.key_basis != nullptr);
}

}  // namespace

void KeyFactorPrefill(const KeyFactorPrefillParams& p, ThreadPool& pool) {
  CheckParams(p);
  SPIN_CHECK(p.scratch != nullptr);
  for (int32_t s = 0; s < p.num_slices; ++s) {
    p.tables.geometry.dtype == DType::kF32 ? FactorSlice<float>(p, p.slices[s], pool)
                                           : FactorSlice<uint16_t>(p, p.slices[s], pool);
  }
}

void KeyFactorDecode(const KeyFactorDecodeParams& p, ThreadPool& pool) {
  CheckParams(p);
  p.tables.geometry.dtype == DType::kF32 ? IndexDecode<float>(p, pool)
                                         : IndexDecode<uint16_t>(p, pool);
}

}  // namespace spin::cpu
