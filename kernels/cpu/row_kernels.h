// Kernels of one row: RMSNorm, SiLU, rotary embedding. Included by isa_*.cc alone, see simd.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace spin::cpu {
namespace {

// 1 / sqrt(mean(x^2) + eps). Four partial sums, one tree: the order depends on n alone.
template <typename T>
inline float InverseRms(const T* x, int32_t n, float eps) {
  V16 sums[4] = {Zero(), Zero(), Zero(), Zero()};
  for (int32_t i = 0; i < n; i += 64) {
    for (int j = 0; j < 4; ++j) {
      const int32_t at = i + 16 * j;
      if (at >= n) break;
      const V16 v = LoadPart(x + at, n - at);
      sums[j] = Fma(v, v, sums[j]);
    }
  }
  const float sum = Sum(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
  return 1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps);
}

template <typename T>
inline void RmsNormRowTo(const float* in, const float* weight, float eps, int32_t n, T* out) {
  const V16 scale = Set(InverseRms(in, n, eps));
  for (int32_t i = 0; i < n; i += 16) {
    const V16 v = Mul(Mul(LoadPart(in + i, n - i), scale), LoadPart(weight + i, n - i));
    StorePart(out + i, v, n - i);
  }
}

void RmsNormRow(const float* in, const float* weight, float eps, int32_t n, void* out, bool bf16) {
  if (bf16) {
    RmsNormRowTo(in, weight, eps, n, static_cast<uint16_t*>(out));
  } else {
    RmsNormRowTo(in, weight, eps, n, static_cast<float*>(out));
  }
}

template <typename T>
inline void SiluMulRowOf(const T* gate, const T* up, int32_t n, T* out) {
  for (int32_t i = 0; i < n; i += 16) {
    const V16 g = LoadPart(gate + i, n - i);
    const V16 u = LoadPart(up + i, n - i);
    const V16 silu = Div(g, Add(Set(1.0f), Exp(Sub(Zero(), g))));
    StorePart(out + i, Mul(silu, u), n - i);
  }
}

void SiluMulRow(const void* gate, const void* up, int32_t n, void* out, bool bf16) {
  if (bf16) {
    SiluMulRowOf(static_cast<const uint16_t*>(gate), static_cast<const uint16_t*>(up), n,
                 static_cast<uint16_t*>(out));
  } else {
    SiluMulRowOf(static_cast<const float*>(gate), static_cast<const float*>(up), n,
                 static_cast<float*>(out));
  }
}

// In place; `norm` may be null. Half-split: lane i of the first half pairs with lane i of the
// second.
template <typename T>
inline void RopeHead(T* x, int32_t d, const float* norm, float eps, const float* table) {
  const int32_t half = d / 2;
  const float scale = norm == nullptr ? 1.0f : InverseRms(x, d, eps);
  for (int32_t i = 0; i < half; i += 16) {
    V16 a = Load(x + i);
    V16 b = Load(x + half + i);
    if (norm != nullptr) {
      a = Mul(Mul(a, Set(scale)), Load(norm + i));
      b = Mul(Mul(b, Set(scale)), Load(norm + half + i));
    }
    const V16 cosine = Load(table + i);
    const V16 sine = Load(table + half + i);
    Store(x + i, Fma(a, cosine, Mul(Sub(Zero(), b), sine)));
    Store(x + half + i, Fma(b, cosine, Mul(a, sine)));
  }
}

void RopeRow(void* heads, int32_t num_heads, int32_t d, const float* norm, float eps,
             const float* table, bool bf16) {
  for (int32_t h = 0; h < num_heads; ++h) {
    const int64_t at = int64_t{h} * d;
    if (bf16) {
      RopeHead(static_cast<uint16_t*>(heads) + at, d, norm, eps, table);
    } else {
      RopeHead(static_cast<float*>(heads) + at, d, norm, eps, table);
    }
  }
}

}  // namespace
}  // namespace spin::cpu
