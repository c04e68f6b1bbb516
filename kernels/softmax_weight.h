// Softmax in integers. Scores become whole numbers, whose sum is the same in any order and on any backend: what depends
// on whether a share is above a threshold is decided alike everywhere, to the bit.
#pragma once

#include <cstdint>

namespace spin {

// The product with a fraction, in units of 2^-32, rounded down.
constexpr uint32_t TimesFraction(uint32_t value, uint32_t fraction) {
  return static_cast<uint32_t>(uint64_t{value} * fraction >> 32);
}

// exp(score - max) in units of 2^-31, rounded down: within 1e-5 of itself, and a unit; never more for a lesser score.
// 0 for NaN, and where max is infinite. REQUIRES: score <= max, or NaN.
constexpr uint32_t SoftmaxWeight(float score, float max) {
  // exp(score - max) = 2^-(i + x), i whole, 0 <= x < 1; and 2^-x = 1 - x (c1 - x (c2 - x (c3 - x c4))), at most 3.4e-6
  // of itself away, exact where x is 0 or 1. In units of 2^-31.
  constexpr uint32_t kOne = 1u << 31, kC1 = 1488326151, kC2 = 514119775, kC3 = 114090821,
                     kC4 = 14555373;
  constexpr int kBits = 20;  // of x
  constexpr float kLog2E = 1.44269504f;
  const float exponent = (max - score) * (kLog2E * (1 << kBits));
  if (!(exponent < 32.0f * (1 << kBits))) return 0;
  const auto fixed = static_cast<uint32_t>(exponent);
  const uint32_t x = fixed << (32 - kBits);  // without i
  const uint32_t c23 = kC2 - TimesFraction(kC3 - TimesFraction(kC4, x), x);
  return (kOne - TimesFraction(kC1 - TimesFraction(c23, x), x)) >> (fixed >> kBits);
}

// The weights whose share of `sum`, which is of up to 2^22 weights, is more than `share` are those above this.
constexpr uint64_t WeightOfShare(uint64_t sum, double share) {
  return static_cast<uint64_t>(static_cast<double>(sum) * share);
}

}  // namespace spin
