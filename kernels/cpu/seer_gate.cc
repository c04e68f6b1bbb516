#include "kernels/cpu/seer_gate.h"

#include <cmath>

#include "kernels/cpu/lanes.h"

namespace spin::cpu {
namespace {

constexpr int32_t kRowsAtOnce = 4;  // rows that share one read of x

template <int32_t kRows, typename T>
SPIN_INLINE void ProductsOf(const T* w, int32_t k, const float* x, float* out) {
  F32x16 sum[kRows] = {};
  for (int32_t c = 0; c < k; c += kLanes) {
    F32x16 of_x;
    LoadLanes(x + c, of_x);
    for (int32_t r = 0; r < kRows; ++r) {
      F32x16 of_w;
      LoadLanes(w + int64_t{r} * k + c, of_w);
      sum[r] += of_w * of_x;
    }
  }
  for (int32_t r = 0; r < kRows; ++r) out[r] = SumLanes(sum[r]);
}

template <typename T>
SPIN_INLINE void ProductsBody(const T* w, int32_t n, int32_t k, const float* x, float* out) {
  int32_t i = 0;
  for (; i + kRowsAtOnce <= n; i += kRowsAtOnce) {
    ProductsOf<kRowsAtOnce>(w + int64_t{i} * k, k, x, out + i);
  }
  for (; i < n; ++i) ProductsOf<1>(w + int64_t{i} * k, k, x, out + i);
}

SPIN_MULTI_ISA(void, ProductsF32,
               (const float* w, int32_t n, int32_t k, const float* x, float* out),
               ProductsBody(w, n, k, x, out), (w, n, k, x, out))
SPIN_MULTI_ISA(void, ProductsBf16,
               (const uint16_t* w, int32_t n, int32_t k, const float* x, float* out),
               ProductsBody(w, n, k, x, out), (w, n, k, x, out))

}  // namespace

void GateProducts(const float* w, int32_t n, int32_t k, const float* x, float* out) {
  ProductsF32(w, n, k, x, out);
}
void GateProducts(const uint16_t* w, int32_t n, int32_t k, const float* x, float* out) {
  ProductsBf16(w, n, k, x, out);
}

void NormAndRotate(float* x, int32_t d, const float* norm, const float* row) {
  if (norm != nullptr) {
    float squares = 0;
    for (int32_t i = 0; i < d; ++i) squares += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(d) + kSeerNormEps);
    for (int32_t i = 0; i < d; ++i) x[i] *= scale * norm[i];
  }
  const int32_t half = d / 2;
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = a * row[i] - b * row[half + i];
    x[half + i] = b * row[i] + a * row[half + i];
  }
}

}  // namespace spin::cpu
