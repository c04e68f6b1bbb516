// Integer helpers for sizes and counts.
#pragma once

#include <concepts>
#include <limits>

#include "common/check.h"

namespace spin {

// The least integer >= a / b. REQUIRES: a >= 0, b > 0.
template <std::integral T>
constexpr T CeilDiv(T a, std::type_identity_t<T> b) {
  return (a + b - 1) / b;
}

// The least multiple of `unit` that is >= a.
template <std::integral T>
constexpr T RoundUp(T a, std::type_identity_t<T> unit) {
  return CeilDiv(a, unit) * unit;
}

// a / b where b must divide a.
template <std::integral T>
T DivExact(T a, std::type_identity_t<T> b) {
  SPIN_CHECK_EQ(a % b, T{0});
  return a / b;
}

// A cast that checks that the value survives.
template <std::integral To, std::integral From>
To Narrow(From value) {
  const To result = static_cast<To>(value);
  SPIN_CHECK(static_cast<From>(result) == value && ((result < To{}) == (value < From{})));
  return result;
}

}  // namespace spin
