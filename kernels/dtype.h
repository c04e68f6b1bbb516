// Element types and their conversions on the host. PODs only: CUDA files include this header.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

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

// `count` elements of `from_type` at `from`, any alignment, become float32 or bfloat16 at `to`.
inline void ConvertElements(void* to, DType to_type, const void* from, DType from_type,
                            int64_t count) {
  if (to_type == from_type) {
    std::memcpy(to, from, static_cast<size_t>(count * SizeOf(to_type)));
    return;
  }
  const auto* bytes = static_cast<const char*>(from);
  for (int64_t i = 0; i < count; ++i) {
    float value = 0;
    if (from_type == DType::kF32) {
      std::memcpy(&value, bytes + 4 * i, 4);
    } else {
      uint16_t half = 0;
      std::memcpy(&half, bytes + 2 * i, 2);
      value = from_type == DType::kBf16 ? Bf16ToFloat(half) : F16ToFloat(half);
    }
    if (to_type == DType::kF32) {
      static_cast<float*>(to)[i] = value;
    } else {
      static_cast<uint16_t*>(to)[i] = FloatToBf16(value);
    }
  }
}

}  // namespace spin
