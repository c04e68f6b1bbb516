// Weights of a softmax in integers, against double precision.
#include "kernels/softmax_weight.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

namespace spin {
namespace {

TEST_CASE("a weight is the exponential within its bound, and never more for a lesser score") {
  const float max = GENERATE(0.0f, -3.75f, 250.0f);
  uint32_t before = SoftmaxWeight(max, max);
  CHECK(before == 1u << 31);
  int64_t wrong = 0;
  for (int32_t i = 0; i <= 250'000; ++i) {
    const float score = max - 1e-4f * static_cast<float>(i);
    const uint32_t weight = SoftmaxWeight(score, max);
    const double exact = std::ldexp(std::exp(double{score} - double{max}), 31);
    wrong += !(std::abs(weight - exact) <= 1e-5 * exact + 1) || weight > before;
    before = weight;
  }
  CHECK(wrong == 0);
  CHECK(before == 0);  // e^-25 is less than a unit
}

TEST_CASE("what is no number weighs nothing, nor does anything below infinity") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float nan = std::nanf("");
  CHECK(SoftmaxWeight(nan, 1) == 0);
  CHECK(SoftmaxWeight(-nan, kInfinity) == 0);
  CHECK(SoftmaxWeight(-kInfinity, 1) == 0);
  CHECK(SoftmaxWeight(-std::numeric_limits<float>::max(), std::numeric_limits<float>::max()) == 0);
  CHECK(SoftmaxWeight(1, kInfinity) == 0);
  CHECK(SoftmaxWeight(kInfinity, kInfinity) == 0);
  CHECK(SoftmaxWeight(-kInfinity, -kInfinity) == 0);
  CHECK(SoftmaxWeight(-0.0f, 0.0f) == 1u << 31);
}

TEST_CASE("weights above a share are those whose quotient is above it") {
  CHECK(WeightOfShare(uint64_t{1} << 52, 1) == uint64_t{1} << 52);
  CHECK(WeightOfShare((uint64_t{1} << 52) + 1, 0.5) == uint64_t{1} << 51);
  CHECK(WeightOfShare(1000, 0.25) == 250);  // 251 is more than a quarter
  CHECK(WeightOfShare(999, 0.25) == 249);   // 250 is
  CHECK(WeightOfShare(0, 0.25) == 0);
}

}  // namespace
}  // namespace spin
