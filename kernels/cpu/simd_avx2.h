// V16 as two AVX registers. Only simd.h includes this.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace spin::cpu {
namespace {

struct V16 {
  __m256 lo, hi;
};

inline V16 Set(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline V16 Zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
inline V16 Load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
inline __m256 Widen(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline V16 Load(const uint16_t* p) {
  return {Widen(p), Widen(p + 8)};
}
// 32 bf16 as their even and their odd elements.
inline void LoadPairs(const uint16_t* p, V16& even, V16& odd) {
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  even = {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
  odd = {_mm256_castsi256_ps(_mm256_and_si256(a, high)),
         _mm256_castsi256_ps(_mm256_and_si256(b, high))};
}
inline void Store(float* p, V16 v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline __m256i RoundToBf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
// Round to nearest even; NaN stays NaN.
inline void Store(uint16_t* p, V16 v) {
  const __m256i packed = _mm256_packus_epi32(RoundToBf16(v.lo), RoundToBf16(v.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

inline V16 Add(V16 a, V16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline V16 Sub(V16 a, V16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline V16 Mul(V16 a, V16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline V16 Div(V16 a, V16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline V16 Fma(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
// NaN in the second operand is kept.
inline V16 Max(V16 a, V16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline V16 Min(V16 a, V16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline V16 Round(V16 v) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(v.lo, kNearest), _mm256_round_ps(v.hi, kNearest)};
}
inline __m256 ScaleHalf(__m256 v, __m256 n) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), exponent));
}
// v * 2^n for integral n in [-126, 127].
inline V16 ScaleByPowerOf2(V16 v, V16 n) {
  return {ScaleHalf(v.lo, n.lo), ScaleHalf(v.hi, n.hi)};
}
// v, but 0 where x < bound.
inline V16 ZeroWhereBelow(V16 x, float bound, V16 v) {
  const __m256 b = _mm256_set1_ps(bound);
  return {_mm256_and_ps(_mm256_cmp_ps(x.lo, b, _CMP_NLT_UQ), v.lo),
          _mm256_and_ps(_mm256_cmp_ps(x.hi, b, _CMP_NLT_UQ), v.hi)};
}
// The first n lanes of v, `other` in the rest.
inline V16 FirstLanes(V16 v, int n, float other) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256 lo = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
  const __m256 hi = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane));
  const __m256 rest = _mm256_set1_ps(other);
  return {_mm256_blendv_ps(rest, v.lo, lo), _mm256_blendv_ps(rest, v.hi, hi)};
}
// v where the lane's bit of `mask` is set, `other` elsewhere.
inline V16 MaskedLanes(V16 v, uint32_t mask, float other) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const auto chosen = [&](uint32_t of) {
    const __m256i bits = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(of)), bit);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, bit));
  };
  const __m256 rest = _mm256_set1_ps(other);
  return {_mm256_blendv_ps(rest, v.lo, chosen(mask)),
          _mm256_blendv_ps(rest, v.hi, chosen(mask >> 8))};
}
// x where a > b, y elsewhere.
inline V16 WhereGreater(V16 a, V16 b, V16 x, V16 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))};
}

inline float Sum(V16 v) {
  const __m256 a = _mm256_add_ps(v.lo, v.hi);
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_permute_ps(b, 0x4e));
  b = _mm_add_ps(b, _mm_permute_ps(b, 0xb1));
  return _mm_cvtss_f32(b);
}
inline float MaxLane(V16 v) {
  const __m256 a = _mm256_max_ps(v.lo, v.hi);
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_permute_ps(b, 0x4e));
  b = _mm_max_ps(b, _mm_permute_ps(b, 0xb1));
  return _mm_cvtss_f32(b);
}

// Lane t of the result is Sum(v[t]).
inline V16 Sums(const V16 (&v)[16]) {
  float sums[16];
  for (int t = 0; t < 16; ++t) sums[t] = Sum(v[t]);
  return Load(sums);
}

}  // namespace
}  // namespace spin::cpu
