// Arithmetic on logits, the twin of kernels/cpu/row_math.cc: the same operations in the same order, none contracted, so
// that weights have the same bits and a draw meets the same boundaries.
//
// NaN rule: a NaN element is never a maximum and weighs nothing.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

constexpr float kNegInf = -__builtin_huge_valf();

// Ascending with the float; zero is NaN's, and both zeros are one.
__device__ __forceinline__ uint32_t OrderedKey(float x) {
  const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0;
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float FloatOf(uint32_t key) {
  return __uint_as_float((key >> 31) != 0 ? key & 0x7fffffffu : ~key);
}

// An element and its index as one number: greater is before in the order (value descending, index ascending).
__device__ __forceinline__ uint64_t Candidate(float x, int32_t i) {
  return (uint64_t{OrderedKey(x)} << 32) | ~static_cast<uint32_t>(i);
}
__device__ __forceinline__ bool IsNan(uint64_t candidate) {
  return (candidate >> 32) == 0;
}
__device__ __forceinline__ int32_t IndexOf(uint64_t candidate) {
  return static_cast<int32_t>(~static_cast<uint32_t>(candidate));
}
__device__ __forceinline__ float ValueOf(uint64_t candidate) {
  return FloatOf(static_cast<uint32_t>(candidate >> 32));
}
// As RowMax: -infinity where there is no maximum.
__device__ __forceinline__ float MaxOf(uint64_t best) {
  return IsNan(best) ? kNegInf : ValueOf(best);
}

// exp(z) for z <= 0; 0 below 2^-125 and for NaN.
__device__ __forceinline__ float ExpNonPositive(float z) {
  constexpr float kFloor = -86.6f;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const bool in_range = z > kFloor;
  z = in_range ? z : kFloor;
  const float shifted = __fadd_rn(__fmul_rn(z, 1.44269504088896341f), kMagic);
  const float k = __fsub_rn(shifted, kMagic);
  float r = __fsub_rn(z, __fmul_rn(k, 0.693359375f));
  r = __fsub_rn(r, __fmul_rn(k, -2.12194440e-4f));
  float p = __fadd_rn(__fmul_rn(1.9875691500e-4f, r), 1.3981999507e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
  p = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f);
  const uint32_t exponent = (__float_as_uint(shifted) - __float_as_uint(kMagic)) << 23;
  return in_range ? __uint_as_float(__float_as_uint(p) + exponent) : 0.0f;
}

// Correctly rounded quotients by one divisor in five operations: a product with the rounded reciprocal, corrected
// twice by the exact remainder (Markstein). Quotients that matter here lie in [-87, 0]; where a remainder underflows
// (|a| < 2^-100) the quotient is so small that its exponential is 1 all the same, and where the product overflows it is
// NaN or infinite, which weighs nothing, as the quotient would.
class Divisor {
 public:
  __device__ explicit Divisor(float divisor) {
    divisor_ = divisor;
    reciprocal_ = __frcp_rn(divisor);
    ordinary_ = divisor >= 0x1p-60f && divisor <= 0x1p60f;
  }

  __device__ __forceinline__ float Divide(float a) const {
    if (!ordinary_) return __fdiv_rn(a, divisor_);
    float q = __fmul_rn(a, reciprocal_);
    q = __fmaf_rn(__fmaf_rn(-q, divisor_, a), reciprocal_, q);
    return __fmaf_rn(__fmaf_rn(-q, divisor_, a), reciprocal_, q);
  }
  __device__ bool ordinary() const { return ordinary_; }

 private:
  float divisor_;
  float reciprocal_;
  bool ordinary_;
};

}  // namespace spin::cuda
