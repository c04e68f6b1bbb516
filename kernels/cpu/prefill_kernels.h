// Prefill attention in bf16 with vdpbf16ps: both products of a tile of queries run as small matrix
// products. Included by isa_avx512bf16.cc alone, see simd.h.
//
// Keys go in blocks of 128 from the sequence's begin, so a token's result does not depend on the
// tile it is in. A block is packed once a tile: keys as pairs of dimensions with 16 keys a vector,
// values as pairs of keys with 16 dimensions a vector. Then, for each 12 rows (row = token x query
// head): scores, online softmax, values. Rows past their last key are masked by selection, and keys
// that no row of the tile sees are packed as zeros: what the page holds there is not read.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace spin::cpu {
namespace {

constexpr int kKeyBlock = 128;
constexpr int kRowGroup = 12;  // 12 x 2 accumulators of 32 registers
static_assert(kPrefillTileRows % kRowGroup == 0);

inline __m512bh LoadBf16Pairs(const uint16_t* p) {
  return (__m512bh)_mm512_load_si512(p);
}
inline __m512bh SetBf16Pair(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return (__m512bh)_mm512_set1_epi32(pair);
}

// About 220 KiB at D = 128, on the stack of the thread.
template <int D>
struct PrefillScratch {
  alignas(64) uint16_t q[kPrefillTileRows][D];
  alignas(64) float out[kPrefillTileRows][D];
  alignas(64) uint16_t k[kKeyBlock / 16][D / 2][16][2];
  alignas(64) uint16_t v[kKeyBlock / 2][D][2];
  alignas(64) float scores[kRowGroup][kKeyBlock];
  alignas(64) uint16_t p[kRowGroup][kKeyBlock];
  float max[kPrefillTileRows];
  float weight[kPrefillTileRows];
  float rescale[kRowGroup];
  int32_t last_key[kPrefillTileRows];
};

// Rows of sixteen 4-byte elements to columns.
inline void Transpose16(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // Quarter b of r[4 i + c] is column 4 b + c of rows 4 i .. 4 i + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x44);
    const __m512i high = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xee);
    const __m512i low2 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x44);
    const __m512i high2 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xee);
    t[c] = _mm512_shuffle_i32x4(low, low2, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(low, low2, 0xdd);
    t[8 + c] = _mm512_shuffle_i32x4(high, high2, 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(high, high2, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// Keys and values [begin, begin + count) of the sequence; zeros up to the next multiple of 32.
template <int D>
inline void PackKeys(const PrefillTile& tile, int32_t begin, int32_t count, PrefillScratch<D>& s) {
  const int64_t plane = int64_t{D} << tile.page_shift;
  const int32_t in_page = (1 << tile.page_shift) - 1;
  const auto key = [&](int32_t i) {
    const int32_t token = begin + i;
    return tile.pages + int64_t{token >> tile.page_shift} * 2 * plane +
           int64_t{token & in_page} * D;
  };
  const int32_t padded = (count + 31) / 32 * 32;
  for (int32_t panel = 0; panel < padded / 16; ++panel) {
    for (int c = 0; c < D / 32; ++c) {
      __m512i rows[16];
      for (int i = 0; i < 16; ++i) {
        const int32_t at = panel * 16 + i;
        rows[i] = at < count ? _mm512_loadu_si512(key(at) + 32 * c) : _mm512_setzero_si512();
      }
      Transpose16(rows);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(s.k[panel][16 * c + i], rows[i]);
    }
  }
  for (int32_t pair = 0; pair < padded / 2; ++pair) {
    for (int c = 0; c < D; c += 16) {
      __m512i even = _mm512_setzero_si512();
      __m512i odd = _mm512_setzero_si512();
      const auto load = [&](int32_t at) {
        return _mm512_cvtepu16_epi32(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(key(at) + plane + c)));
      };
      if (2 * pair < count) even = load(2 * pair);
      if (2 * pair + 1 < count) odd = load(2 * pair + 1);
      _mm512_store_si512(s.v[pair][c], _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
  }
}

// scores[r][32 pair ..] = q . k for 12 rows and 32 keys.
template <int D>
inline void ScoreTile(PrefillScratch<D>& s, int32_t row, int32_t pair) {
  V16 acc[kRowGroup][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRowGroup; ++r) acc[r][0] = acc[r][1] = Zero();
  const uint16_t* q = s.q[row];
  const uint16_t* k0 = s.k[2 * pair][0][0];
  const uint16_t* k1 = s.k[2 * pair + 1][0][0];
  for (int i = 0; i < D / 2; ++i) {
    const __m512bh b0 = LoadBf16Pairs(k0 + 32 * i);
    const __m512bh b1 = LoadBf16Pairs(k1 + 32 * i);
#pragma GCC unroll 12
    for (int r = 0; r < kRowGroup; ++r) {
      const __m512bh x = SetBf16Pair(q + r * D + 2 * i);
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
      acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRowGroup; ++r) {
    Store(s.scores[r] + 32 * pair, acc[r][0]);
    Store(s.scores[r] + 32 * pair + 16, acc[r][1]);
  }
}

// Online softmax of row r of the group: scores to probabilities in bf16. The first `valid` keys of
// the block count.
template <int D>
inline void SoftmaxRow(PrefillScratch<D>& s, int32_t row, int r, int32_t valid, int32_t pairs,
                       float scale) {
  V16 top = Set(-__builtin_inff());
  for (int32_t i = 0; i < 32 * pairs; i += 16) {
    V16 x = Mul(Load(s.scores[r] + i), Set(scale));
    const int32_t lanes = valid - i;
    if (lanes < 16) x = FirstLanes(x, lanes > 0 ? lanes : 0, -__builtin_inff());
    Store(s.scores[r] + i, x);
    top = Max(top, x);
  }
  const float block_max = MaxLane(top);
  const float max = s.max[row + r] >= block_max ? s.max[row + r] : block_max;
  V16 sum = Zero();
  for (int32_t i = 0; i < 32 * pairs; i += 32) {
    const V16 p0 = Exp(Sub(Load(s.scores[r] + i), Set(max)));
    const V16 p1 = Exp(Sub(Load(s.scores[r] + i + 16), Set(max)));
    sum = Add(sum, Add(p0, p1));
    _mm512_store_si512(s.p[r] + i, (__m512i)_mm512_cvtne2ps_pbh(p1, p0));
  }
  const float rescale = _mm512_cvtss_f32(Exp(Set(s.max[row + r] - max)));
  s.rescale[r] = rescale;
  s.weight[row + r] = s.weight[row + r] * rescale + Sum(sum);
  s.max[row + r] = max;
}

// out = out * rescale + p . v for 12 rows and 32 dimensions from `c`.
template <int D>
inline void ValueTile(PrefillScratch<D>& s, int32_t row, int32_t pairs, int c) {
  V16 acc[kRowGroup][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRowGroup; ++r) {
    const V16 rescale = Set(s.rescale[r]);
    acc[r][0] = Mul(Load(s.out[row + r] + c), rescale);
    acc[r][1] = Mul(Load(s.out[row + r] + c + 16), rescale);
  }
  for (int32_t i = 0; i < 16 * pairs; ++i) {
    const __m512bh b0 = LoadBf16Pairs(s.v[i][c]);
    const __m512bh b1 = LoadBf16Pairs(s.v[i][c + 16]);
#pragma GCC unroll 12
    for (int r = 0; r < kRowGroup; ++r) {
      const __m512bh x = SetBf16Pair(s.p[r] + 2 * i);
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
      acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRowGroup; ++r) {
    Store(s.out[row + r] + c, acc[r][0]);
    Store(s.out[row + r] + c + 16, acc[r][1]);
  }
}

// Copies the queries, row = token x head; returns the number of rows, padded to whole groups by
// rows that nobody reads.
template <int D>
inline int32_t LoadQueries(const PrefillTile& tile, PrefillScratch<D>& s) {
  const int32_t rows = tile.num_tokens * tile.group;
  const int32_t padded = (rows + kRowGroup - 1) / kRowGroup * kRowGroup;
  for (int32_t r = 0; r < padded; ++r) {
    const int32_t token = r < rows ? r / tile.group : tile.num_tokens - 1;
    const uint16_t* from = tile.q + token * tile.q_stride + (r % tile.group) * D;
    for (int c = 0; c < D; c += 32) _mm512_store_si512(s.q[r] + c, _mm512_loadu_si512(from + c));
    for (int c = 0; c < D; c += 16) Store(s.out[r] + c, Zero());
    s.max[r] = -__builtin_inff();
    s.weight[r] = 0;
    s.last_key[r] = tile.last_key[token];
  }
  return padded;
}

template <int D>
void PrefillTileOf(const PrefillTile& tile) {
  PrefillScratch<D> s;
  const int32_t rows = LoadQueries(tile, s);
  int32_t last = 0;
  for (int32_t i = 0; i < tile.num_tokens; ++i)
    last = tile.last_key[i] > last ? tile.last_key[i] : last;
  for (int32_t begin = 0; begin <= last; begin += kKeyBlock) {
    const int32_t count = last + 1 - begin < kKeyBlock ? last + 1 - begin : kKeyBlock;
    PackKeys(tile, begin, count, s);
    for (int32_t row = 0; row < rows; row += kRowGroup) {
      int32_t group_last = 0;
      for (int r = 0; r < kRowGroup; ++r) {
        group_last = s.last_key[row + r] > group_last ? s.last_key[row + r] : group_last;
      }
      if (group_last < begin) continue;
      const int32_t seen = group_last + 1 - begin < count ? group_last + 1 - begin : count;
      const int32_t pairs = (seen + 31) / 32;
      for (int32_t pair = 0; pair < pairs; ++pair) ScoreTile(s, row, pair);
      for (int r = 0; r < kRowGroup; ++r) {
        SoftmaxRow(s, row, r, s.last_key[row + r] + 1 - begin, pairs, tile.scale);
      }
      for (int c = 0; c < D; c += 32) ValueTile(s, row, pairs, c);
    }
  }
  for (int32_t r = 0; r < tile.num_tokens * tile.group; ++r) {
    uint16_t* out = tile.out + r / tile.group * tile.out_stride + (r % tile.group) * D;
    const V16 inverse = Set(1.0f / s.weight[r]);
    for (int c = 0; c < D; c += 16) Store(out + c, Mul(Load(s.out[r] + c), inverse));
  }
}

void PrefillBf16(const PrefillTile& tile) {
  if (tile.head_dim == 64) {
    PrefillTileOf<64>(tile);
  } else {
    PrefillTileOf<128>(tile);
  }
}

}  // namespace
}  // namespace spin::cpu
