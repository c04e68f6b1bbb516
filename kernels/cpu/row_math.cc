#include "kernels/cpu/row_math.h"

#include <cstring>
#include <limits>

#include "kernels/cpu/lanes.h"

namespace spin::cpu {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

// Elements [i, i + 16) of a row, `fill` behind its end.
SPIN_INLINE void LoadRow(const float* x, int64_t i, int64_t n, float fill, F32x16& v) {
  v = fill - F32x16{};
  if (i + kLanes <= n) {
    std::memcpy(&v, x + i, sizeof(v));
  } else {
    std::memcpy(&v, x + i, static_cast<size_t>(n - i) * sizeof(float));
  }
}

SPIN_INLINE float RowMaxBody(const float* x, int64_t n) {
  F32x16 m = kNegInf - F32x16{};
  for (int64_t i = 0; i < n; i += kLanes) {
    F32x16 v;
    LoadRow(x, i, n, kNegInf, v);
    m = v > m ? v : m;
  }
  float max = kNegInf;
  for (int l = 0; l < kLanes; ++l) max = m[l] > max ? m[l] : max;
  return max;
}

// z = exp(z) for z <= 0: 2^k * p(r), z = k ln 2 + r, |r| <= ln 2 / 2, p of degree 6 (Cephes expf;
// error below 1.2 ulp).
SPIN_INLINE void Exp(F32x16& z) {
  const F32x16 floor = -86.6f - F32x16{};  // exp = 2^-125
  const I32x16 in_range = z > floor;       // false for NaN
  z = in_range ? z : floor;
  const F32x16 magic = 12582912.0f - F32x16{};  // 1.5 * 2^23: adding it rounds to an integer
  const F32x16 shifted = z * 1.44269504088896341f + magic;
  const F32x16 k = shifted - magic;
  F32x16 r = z - k * 0.693359375f;
  r = r - k * -2.12194440e-4f;
  F32x16 p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const I32x16 exponent = ((I32x16)shifted - (I32x16)magic) << 23;
  const F32x16 result = (F32x16)((I32x16)p + exponent);
  z = in_range ? result : F32x16{};
}

SPIN_INLINE double RowExpSumBody(const float* x, int64_t n, float max, float temperature,
                                 float* weights) {
  F64x8 low = {}, high = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    F32x16 w;
    LoadRow(x, i, n, kNegInf, w);
    w = (w - max) / temperature;
    Exp(w);
    if (weights != nullptr) {
      const int64_t left = n - i < kLanes ? n - i : kLanes;
      std::memcpy(weights + i, &w, static_cast<size_t>(left) * sizeof(float));
    }
    F32x8 half[2];
    std::memcpy(half, &w, sizeof(w));
    low += __builtin_convertvector(half[0], F64x8);
    high += __builtin_convertvector(half[1], F64x8);
  }
  double sum = 0;
  for (int l = 0; l < kLanes / 2; ++l) sum += low[l];
  for (int l = 0; l < kLanes / 2; ++l) sum += high[l];
  return sum;
}

SPIN_MULTI_ISA(float, RowMaxIsa, (const float* x, int64_t n), RowMaxBody(x, n), (x, n))
SPIN_MULTI_ISA(double, RowExpSumIsa,
               (const float* x, int64_t n, float max, float temperature, float* weights),
               RowExpSumBody(x, n, max, temperature, weights), (x, n, max, temperature, weights))

}  // namespace

float RowMax(const float* x, int64_t n) {
  return RowMaxIsa(x, n);
}

int32_t RowArgMax(const float* x, int64_t n) {
  const float max = RowMaxIsa(x, n);
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == max) return static_cast<int32_t>(i);
  }
  return 0;  // all are NaN
}

double RowExpSum(const float* x, int64_t n, float max, float temperature, float* weights) {
  return RowExpSumIsa(x, n, max, temperature, weights);
}

}  // namespace spin::cpu
