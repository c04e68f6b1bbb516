// V16: sixteen floats, whatever the instruction set. One of three implementations, chosen by the
// flags of the file that includes it; everything here has internal linkage, so that no copy leaks
// into a file compiled with other flags. For the same reason the kernel headers call no inline
// function of other headers.
//
// All three do the same arithmetic in the same order (Sum is always the tree 8, 4, 2, 1); AVX2 and
// AVX-512 agree bit for bit, the generic one differs where it has no fused multiply-add.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#include "kernels/cpu/simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "kernels/cpu/simd_avx2.h"
#else
#include "kernels/cpu/simd_generic.h"
#endif

namespace spin::cpu {
namespace {

// Element access of the two activation types. bf16 travels as uint16_t.
inline V16 LoadPart(const float* p, int n) {
  if (n >= 16) return Load(p);
  float tail[16] = {};
  for (int i = 0; i < n; ++i) tail[i] = p[i];
  return Load(tail);
}
inline V16 LoadPart(const uint16_t* p, int n) {
  if (n >= 16) return Load(p);
  uint16_t tail[16] = {};
  for (int i = 0; i < n; ++i) tail[i] = p[i];
  return Load(tail);
}
template <typename T>
inline void StorePart(T* p, V16 v, int n) {
  if (n >= 16) {
    Store(p, v);
    return;
  }
  T tail[16];
  Store(tail, v);
  for (int i = 0; i < n; ++i) p[i] = tail[i];
}

// exp(x) to about 1 ulp: 2^n * p(r), n = round(x / ln 2), |r| <= ln(2) / 2, p the Taylor polynomial
// of degree 7 (its next term is below 2^-28). Below -87.3 the result is 0, above 88.3 that of 88.3;
// NaN stays NaN.
inline V16 Exp(V16 x) {
  const V16 clamped = Min(Set(88.3762626647949f), Max(Set(-87.3365478515625f), x));
  const V16 n = Round(Mul(clamped, Set(1.44269504088896341f)));
  V16 r = Fma(n, Set(-0.693359375f), clamped);
  r = Fma(n, Set(2.12194440e-4f), r);
  V16 p = Set(1.0f / 5040);
  p = Fma(p, r, Set(1.0f / 720));
  p = Fma(p, r, Set(1.0f / 120));
  p = Fma(p, r, Set(1.0f / 24));
  p = Fma(p, r, Set(1.0f / 6));
  p = Fma(p, r, Set(0.5f));
  p = Fma(p, r, Set(1.0f));
  p = Fma(p, r, Set(1.0f));
  return ZeroWhereBelow(x, -87.3365478515625f, ScaleByPowerOf2(p, n));
}

// Sums that stay in registers beside what they are made of: rows by vectors of 16.
#if defined(__AVX512F__)
constexpr int kTileRows = 12;  // 12 x 2 of 32 registers
constexpr int kTileVectors = 2;
#elif defined(__AVX2__)
constexpr int kTileRows = 4;  // 4 x 2 half vectors of 16 registers
constexpr int kTileVectors = 1;
#else
constexpr int kTileRows = 2;
constexpr int kTileVectors = 1;
#endif

}  // namespace
}  // namespace spin::cpu
