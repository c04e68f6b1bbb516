// Element types and their conversions on the host. PODs only: CUDA files include this header.
#pragma once

#include <bit>
#include <cstdint>

namespace spin {

enum class DType : int32_t { kF32 = 0, kBf16 = 1, kF16 = 2 };

constexpr int64_t SizeOf(DType type) {
  return type == DType::kF32 ? 4 : 2;
}

constexpr const char* NameOf(DType type) {
  return type == DType::kF32 ? "float32" : type == DType::kBf16 ? "bfloat16" : "float16";
}

// bfloat16 is the upper half of a float.
inline float Bf16ToFloat(uint16_t value) {
  return std::bit_cast<float>(uint32_t{value} << 16);
}

// Round to nearest, ties to even; NaN stays NaN (quiet).
inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// IEEE half precision to float, exact (subnormals included).
inline float F16ToFloat(uint16_t value) {
  const uint32_t sign = uint32_t{value & 0x8000u} << 16;
  const uint32_t exponent = (value >> 10) & 0x1f;
  const uint32_t mantissa = value & 0x3ff;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t bits =
      exponent == 31 ? 0x7f800000 | (mantissa << 13) : ((exponent + 112) << 23) | (mantissa << 13);
  return std::bit_cast<float>(sign | bits);
}

}  // namespace spin
