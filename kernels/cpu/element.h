// An element of either activation type as a float, and back. bf16 travels as uint16_t.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/dtype.h"

namespace spin::cpu {

inline float ToFloat(float value) {
  return value;
}
inline float ToFloat(uint16_t bf16) {
  return Bf16ToFloat(bf16);
}

template <typename T>
T FromFloat(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return FloatToBf16(value);
  }
}

}  // namespace spin::cpu
