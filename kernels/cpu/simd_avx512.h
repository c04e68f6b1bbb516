// V16 as one AVX-512 register. Only simd.h includes this.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace spin::cpu {
namespace {

using V16 = __m512;

inline V16 Set(float x) {
  return _mm512_set1_ps(x);
}
inline V16 Zero() {
  return _mm512_setzero_ps();
}
inline V16 Load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline V16 Load(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
// 32 bf16 as their even and their odd elements.
inline void LoadPairs(const uint16_t* p, V16& even, V16& odd) {
  const __m512i pairs = _mm512_loadu_si512(p);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  odd =
      _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}
inline void Store(float* p, V16 v) {
  _mm512_storeu_ps(p, v);
}
// Round to nearest even; NaN stays NaN.
inline void Store(uint16_t* p, V16 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i result = _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
}

inline V16 Add(V16 a, V16 b) {
  return _mm512_add_ps(a, b);
}
inline V16 Sub(V16 a, V16 b) {
  return _mm512_sub_ps(a, b);
}
inline V16 Mul(V16 a, V16 b) {
  return _mm512_mul_ps(a, b);
}
inline V16 Div(V16 a, V16 b) {
  return _mm512_div_ps(a, b);
}
inline V16 Fma(V16 a, V16 b, V16 c) {
  return _mm512_fmadd_ps(a, b, c);
}
// NaN in the second operand is kept.
inline V16 Max(V16 a, V16 b) {
  return _mm512_max_ps(a, b);
}
inline V16 Min(V16 a, V16 b) {
  return _mm512_min_ps(a, b);
}
inline V16 Round(V16 v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// v * 2^n for integral n in [-126, 127].
inline V16 ScaleByPowerOf2(V16 v, V16 n) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), exponent));
}
// v, but 0 where x < bound.
inline V16 ZeroWhereBelow(V16 x, float bound, V16 v) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, Set(bound), _CMP_NLT_UQ), v);
}
// The first n lanes of v, `other` in the rest.
inline V16 FirstLanes(V16 v, int n, float other) {
  return _mm512_mask_mov_ps(Set(other), static_cast<__mmask16>((1u << n) - 1), v);
}
// v where the lane's bit of `mask` is set, `other` elsewhere.
inline V16 MaskedLanes(V16 v, uint32_t mask, float other) {
  return _mm512_mask_mov_ps(Set(other), static_cast<__mmask16>(mask), v);
}
// x where a > b, y elsewhere.
inline V16 WhereGreater(V16 a, V16 b, V16 x, V16 y) {
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), x);
}

inline V16 Halves(V16 v) {
  return _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));
}
inline float Sum(V16 v) {
  v = Halves(v);
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
  return _mm512_cvtss_f32(v);
}
inline float MaxLane(V16 v) {
  v = _mm512_max_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));
  v = _mm512_max_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
  v = _mm512_max_ps(v, _mm512_permute_ps(v, 0x4e));
  v = _mm512_max_ps(v, _mm512_permute_ps(v, 0xb1));
  return _mm512_cvtss_f32(v);
}

// Lane t of the result is Sum(v[t]): the same tree for sixteen vectors at once.
inline V16 Sums(const V16 (&v)[16]) {
  V16 a[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[i], v[i + 8], 0x44),
                         _mm512_shuffle_f32x4(v[i], v[i + 8], 0xee));
  }
  V16 b[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88),
                         _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
  }
  V16 c[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512d lo = _mm512_castps_pd(b[i]);
    const __m512d hi = _mm512_castps_pd(b[i + 2]);
    c[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi)));
  }
  const V16 sums =
      _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xdd));
  // Quarters now hold v[0 + ..], v[8 + ..], v[4 + ..], v[12 + ..], each in the order 0, 2, 1, 3.
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  return _mm512_permutexvar_ps(order, sums);
}

}  // namespace
}  // namespace spin::cpu
