// The greatest k of a row of scores, exactly, without sorting and without scratch.
//
// Radix selection over ordered keys, 11 + 11 + 10 bits, in place on the scores. A key orders as the score does; -0
// equals +0, and NaN is below everything, so that a broken score is chosen last and never breaks the order.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace spin::cpu {

inline uint32_t OrderedKey(float score) {
  if (std::isnan(score)) return 0;
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 + 0 = +0
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

struct Cut {
  uint32_t key = 0;   // everything above is chosen
  int32_t equal = 0;  // and so many equal to it, lowest ids first
};

// The cut that chooses k of n. REQUIRES: 0 < k <= n.
inline Cut FindCut(const float* scores, int32_t n, int32_t k) {
  std::array<int32_t, 2048> histogram;
  uint32_t prefix = 0;  // leading bits of the cut, found so far
  uint32_t known = 0;   // mask of those bits
  for (const auto& [shift, bits] : {std::array{21, 11}, std::array{10, 11}, std::array{0, 10}}) {
    histogram.fill(0);
    const uint32_t mask = (1u << bits) - 1;
    for (int32_t i = 0; i < n; ++i) {
      const uint32_t key = OrderedKey(scores[i]);
      if ((key & known) == prefix) ++histogram[(key >> shift) & mask];
    }
    uint32_t digit = mask;
    while (histogram[digit] < k) k -= histogram[digit--];
    prefix |= digit << shift;
    known |= mask << shift;
  }
  return {prefix, k};
}

// Calls visit(i) for the k greatest of n scores in ascending i; ties go to the lower i. REQUIRES: 0 <= k <= n.
template <typename Visit>
void ForEachTop(const float* scores, int32_t n, int32_t k, Visit visit) {
  if (k == 0) return;
  Cut cut = FindCut(scores, n, k);
  for (int32_t i = 0; i < n; ++i) {
    const uint32_t key = OrderedKey(scores[i]);
    if (key > cut.key || (key == cut.key && cut.equal-- > 0)) visit(i);
  }
}

}  // namespace spin::cpu
