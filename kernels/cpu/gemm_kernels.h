// Matrix product over packed panels. Included by isa_*.cc alone, see simd.h.
//
// Every output is one chain of multiply-adds in the order of k (in pairs of k with vdpbf16ps), kept
// in one lane from begin to end: the same sum whatever the number of rows, the tile or the thread.
// Only then comes the old c.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/weight_layout.h"
#include "kernels/params.h"

namespace spin::cpu {
namespace {

// Rows of a that are multiplied by one panel after another: they stay in the second-level cache.
constexpr int64_t kRowBlockBytes = 512 * 1024;

inline int32_t AsInt(const uint16_t* pair) {
  int32_t value;
  __builtin_memcpy(&value, pair, sizeof(value));
  return value;
}
inline float FromBits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// Adds the product of MR rows of a with kTileVectors * 16 outputs of a panel. `panel` points to the
// first of them.
template <int MR>
inline void Accumulate(const float* a, int64_t lda, int32_t k, const float* panel,
                       V16 (&acc)[MR][kTileVectors]) {
  for (int32_t i = 0; i < k; ++i, panel += kPanelRows) {
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const V16 x = Set(a[r * lda + i]);
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) acc[r][v] = Fma(x, Load(panel + 16 * v), acc[r][v]);
    }
  }
}

#if defined(__AVX512BF16__)

inline __m512bh LoadDot(const uint16_t* p) {
  return (__m512bh)_mm512_loadu_si512(p);
}
inline __m512bh SetDot(int32_t pair) {
  return (__m512bh)_mm512_set1_epi32(pair);
}

// Bytes ahead of the stream of weights: the hardware's prefetcher stops at every 4 KiB page.
constexpr int kPrefetchElements = 2048;

template <int MR>
inline void Accumulate(const uint16_t* a, int64_t lda, int32_t k, const uint16_t* panel,
                       V16 (&acc)[MR][kTileVectors]) {
  // One pointer for three rows: x86 addresses reach base, base + lda and base + 2 lda.
  constexpr int kBases = (MR + 2) / 3;
  const uint16_t* base[kBases];
  for (int i = 0; i < kBases; ++i) base[i] = a + 3 * i * lda;
  for (int32_t i = 0; i + 2 <= k; i += 2, panel += 2 * kPanelRows) {
    const __m512bh w0 = LoadDot(panel);
    const __m512bh w1 = LoadDot(panel + 32);
    __builtin_prefetch(panel + kPrefetchElements);
    __builtin_prefetch(panel + kPrefetchElements + 32);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const __m512bh x = SetDot(AsInt(base[r / 3] + (r % 3) * lda + i));
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], w0, x);
      acc[r][1] = _mm512_dpbf16_ps(acc[r][1], w1, x);
    }
  }
  if (k % 2 != 0) {
    for (int r = 0; r < MR; ++r) {
      const __m512bh x = SetDot(a[r * lda + k - 1]);
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], LoadDot(panel), x);
      acc[r][1] = _mm512_dpbf16_ps(acc[r][1], LoadDot(panel + 32), x);
    }
  }
}

#else

template <int MR>
inline void Accumulate(const uint16_t* a, int64_t lda, int32_t k, const uint16_t* panel,
                       V16 (&acc)[MR][kTileVectors]) {
  for (int32_t i = 0; i < k; i += 2, panel += 2 * kPanelRows) {
    const bool pair = i + 1 < k;
    V16 even[kTileVectors], odd[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) LoadPairs(panel + 32 * v, even[v], odd[v]);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const uint16_t* x = a + r * lda + i;
      const V16 x0 = Set(FromBits(uint32_t{x[0]} << 16));
      const V16 x1 = Set(pair ? FromBits(uint32_t{x[1]} << 16) : 0.0f);
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) {
        acc[r][v] = Fma(x1, odd[v], Fma(x0, even[v], acc[r][v]));
      }
    }
  }
}

#endif

template <typename C>
inline void StoreOutputs(C* c, V16 sum, int32_t count, bool accumulate) {
  if (accumulate) sum = Add(LoadPart(c, count), sum);
  StorePart(c, sum, count);
}

// Rows [row, row + MR) times the outputs of one panel.
template <typename T, int MR>
void Tile(const GemmParams& p, int64_t row, int64_t panel) {
  constexpr int64_t kPair = sizeof(T) == 2 ? 2 : 1;
  const T* a = static_cast<const T*>(p.a) + row * p.lda;
  const int64_t k_steps = (p.w.k + kPair - 1) / kPair;
  const T* w = static_cast<const T*>(p.w.data) + panel * k_steps * kPanelRows * kPair;
  for (int part = 0; part < kPanelRows; part += 16 * kTileVectors) {
    V16 acc[MR][kTileVectors];
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      for (int v = 0; v < kTileVectors; ++v) acc[r][v] = Zero();
    }
    Accumulate<MR>(a, p.lda, p.w.k, w + part * kPair, acc);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      for (int v = 0; v < kTileVectors; ++v) {
        const int64_t col = panel * kPanelRows + part + 16 * v;
        const int32_t count = static_cast<int32_t>(p.w.n - col < 16 ? p.w.n - col : 16);
        if (count <= 0) continue;
        const int64_t at = (row + r) * p.ldc + col;
        if (p.c_dtype == DType::kF32) {
          StoreOutputs(static_cast<float*>(p.c) + at, acc[r][v], count, p.accumulate);
        } else {
          StoreOutputs(static_cast<uint16_t*>(p.c) + at, acc[r][v], count, false);
        }
      }
    }
  }
}

// Tile<T, rows> for a run-time number of rows in 1..kTileRows.
template <typename T, int MR = kTileRows>
inline void TileOfRows(const GemmParams& p, int64_t row, int64_t panel, int64_t rows) {
  if constexpr (MR == 1) {
    Tile<T, 1>(p, row, panel);
  } else if (rows == MR) {
    Tile<T, MR>(p, row, panel);
  } else {
    TileOfRows<T, MR - 1>(p, row, panel, rows);
  }
}

template <typename T>
inline void GemmPanelsOf(const GemmParams& p, int64_t panel_begin, int64_t panel_end) {
  const int64_t block_tiles = kRowBlockBytes / (int64_t{kTileRows} * p.w.k * int64_t{sizeof(T)});
  const int64_t block = kTileRows * (block_tiles > 0 ? block_tiles : 1);
  for (int64_t block_begin = 0; block_begin < p.m; block_begin += block) {
    const int64_t block_end = block_begin + block < p.m ? block_begin + block : p.m;
    // Tiles of equal height: 16 rows are two of 8, not 12 and 4.
    const int64_t tiles = (block_end - block_begin + kTileRows - 1) / kTileRows;
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      int64_t row = block_begin;
      for (int64_t tile = tiles; tile > 0; --tile) {
        const int64_t rows = (block_end - row + tile - 1) / tile;
        TileOfRows<T>(p, row, panel, rows);
        row += rows;
      }
    }
  }
}

// The multiply-adds of a full tile without its memory traffic: the ceiling of GemmPanels.
int64_t Bf16Dots(int64_t rounds) {
  constexpr int kChains = kTileRows * kTileVectors;
  V16 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = Zero();
#if defined(__AVX512BF16__)
  const __m512bh x = SetDot(0x3f803f80);
  constexpr int64_t kFlops = 4 * 16;
  const auto step = [&](V16& sum) { sum = _mm512_dpbf16_ps(sum, x, x); };
#else
  const V16 x = Set(1.0f);
  constexpr int64_t kFlops = 2 * 16;
  const auto step = [&](V16& sum) { sum = Fma(x, x, sum); };
#endif
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) step(acc[i]);
  }
  // The sums must be used, or the compiler drops them.
  volatile float used = 0;
  for (int i = 0; i < kChains; ++i) used = used + Sum(acc[i]);
  return rounds * kChains * kFlops;
}

void GemmPanels(const GemmParams& p, int64_t panel_begin, int64_t panel_end) {
  if (p.w.dtype == DType::kF32) {
    GemmPanelsOf<float>(p, panel_begin, panel_end);
  } else {
    GemmPanelsOf<uint16_t>(p, panel_begin, panel_end);
  }
}

}  // namespace
}  // namespace spin::cpu
