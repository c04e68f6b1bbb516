// V16 in plain C++. Only simd.h includes this.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace spin::cpu {
namespace {

// A vector of the compiler: lowered to whatever registers the target has.
typedef float V16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));

inline V16 Zero() {
  return V16{};
}
inline V16 Set(float x) {
  return V16{} + x;
}
inline V16 Load(const float* p) {
  V16 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline V16 Load(const uint16_t* p) {
  I16 bits;
  for (int i = 0; i < 16; ++i) bits[i] = static_cast<int32_t>(uint32_t{p[i]} << 16);
  V16 v;
  std::memcpy(&v, &bits, sizeof(v));
  return v;
}
// 32 bf16 as their even and their odd elements.
inline void LoadPairs(const uint16_t* p, V16& even, V16& odd) {
  I16 pairs;
  std::memcpy(&pairs, p, sizeof(pairs));
  const I16 low = pairs << 16;
  const I16 high = pairs & static_cast<int32_t>(0xffff0000);
  std::memcpy(&even, &low, sizeof(even));
  std::memcpy(&odd, &high, sizeof(odd));
}
inline void Store(float* p, V16 v) {
  std::memcpy(p, &v, sizeof(v));
}
// Round to nearest even; NaN stays NaN.
inline void Store(uint16_t* p, V16 v) {
  uint32_t bits[16];
  std::memcpy(bits, &v, sizeof(bits));
  for (int i = 0; i < 16; ++i) {
    const uint32_t b = bits[i];
    const bool nan = (b & 0x7fffffff) > 0x7f800000;
    p[i] = static_cast<uint16_t>((nan ? b | 0x400000 : b + 0x7fff + ((b >> 16) & 1)) >> 16);
  }
}

inline V16 Add(V16 a, V16 b) {
  return a + b;
}
inline V16 Sub(V16 a, V16 b) {
  return a - b;
}
inline V16 Mul(V16 a, V16 b) {
  return a * b;
}
inline V16 Div(V16 a, V16 b) {
  return a / b;
}
inline V16 Fma(V16 a, V16 b, V16 c) {
  return a * b + c;
}
// NaN in the second operand is kept.
inline V16 Max(V16 a, V16 b) {
  return a > b ? a : b;
}
inline V16 Min(V16 a, V16 b) {
  return a < b ? a : b;
}
inline V16 Round(V16 v) {
  // Adding and taking away 1.5 * 2^23 rounds |v| < 2^22 to nearest even.
  const V16 big = Set(12582912.0f);
  return (v + big) - big;
}
// v * 2^n for integral n in [-126, 127].
inline V16 ScaleByPowerOf2(V16 v, V16 n) {
  I16 bits;
  std::memcpy(&bits, &v, sizeof(bits));
  bits += __builtin_convertvector(n, I16) << 23;
  std::memcpy(&v, &bits, sizeof(v));
  return v;
}
// v, but 0 where x < bound.
inline V16 ZeroWhereBelow(V16 x, float bound, V16 v) {
  return x < Set(bound) ? Zero() : v;
}
// The first n lanes of v, `other` in the rest.
inline V16 FirstLanes(V16 v, int n, float other) {
  for (int i = n; i < 16; ++i) v[i] = other;
  return v;
}
// v where the lane's bit of `mask` is set, `other` elsewhere.
inline V16 MaskedLanes(V16 v, uint32_t mask, float other) {
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) == 0) v[i] = other;
  }
  return v;
}
// x where a > b, y elsewhere.
inline V16 WhereGreater(V16 a, V16 b, V16 x, V16 y) {
  return a > b ? x : y;
}

inline float Sum(V16 v) {
  float a[16];
  std::memcpy(a, &v, sizeof(a));
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a[i] += a[i + step];
  }
  return a[0];
}
inline float MaxLane(V16 v) {
  float a[16];
  std::memcpy(a, &v, sizeof(a));
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a[i] = a[i] > a[i + step] ? a[i] : a[i + step];
  }
  return a[0];
}

// Lane t of the result is Sum(v[t]).
inline V16 Sums(const V16 (&v)[16]) {
  V16 sums;
  for (int t = 0; t < 16; ++t) sums[t] = Sum(v[t]);
  return sums;
}

}  // namespace
}  // namespace spin::cpu
