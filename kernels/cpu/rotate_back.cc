#include "kernels/cpu/rotate_back.h"

#include "kernels/cpu/element.h"

namespace spin::cpu {
namespace {

template <typename T>
void RotateBackBody(const T* x, int32_t d, const float* rope_table, const float* row, float* out) {
  // The cosine of position 0 is the table's magnitude (YaRN's factor, else 1): a rotation and back is its square.
  const float inverse = 1.0f / (rope_table[0] * rope_table[0]);
  const int32_t half = d / 2;
  for (int32_t i = 0; i < half; ++i) {
    const float a = ToFloat(x[i]), b = ToFloat(x[half + i]);
    const float cosine = row[i] * inverse, sine = row[half + i] * inverse;
    out[i] = a * cosine + b * sine;
    out[half + i] = b * cosine - a * sine;
  }
}

}  // namespace

void RotateBack(const float* x, int32_t d, const float* rope_table, const float* row, float* out) {
  RotateBackBody(x, d, rope_table, row, out);
}
void RotateBack(const uint16_t* x, int32_t d, const float* rope_table, const float* row,
                float* out) {
  RotateBackBody(x, d, rope_table, row, out);
}

}  // namespace spin::cpu
