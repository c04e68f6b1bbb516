// Seeded permutations: the same on every machine (std::shuffle's are not).
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "common/random.h"

namespace spin::eval {

// Fisher and Yates.
template <typename T>
void Shuffle(std::vector<T>& values, Random& random) {
  for (size_t i = values.size(); i > 1; --i) {
    std::swap(values[i - 1], values[random.Below(static_cast<uint32_t>(i))]);
  }
}

// `count` different numbers of 0 .. n - 1, in random order. REQUIRES: count <= n.
inline std::vector<int32_t> DrawDistinct(int32_t n, int32_t count, Random& random) {
  std::vector<int32_t> pool(static_cast<size_t>(n));
  std::iota(pool.begin(), pool.end(), 0);
  for (int32_t i = 0; i < count; ++i) {
    const auto j = static_cast<size_t>(i) + random.Below(static_cast<uint32_t>(n - i));
    std::swap(pool[static_cast<size_t>(i)], pool[j]);
  }
  pool.resize(static_cast<size_t>(count));
  return pool;
}

}  // namespace spin::eval
