// The packed weight: panels of 32 outputs, so that a GEMM reads one sequential stream and a vector
// holds 16 outputs.
//
//   float32   [ceil(n / 32)][k][32]
//   bfloat16  [ceil(n / 32)][ceil(k / 2)][32][2]   pairs of k adjacent: what vdpbf16ps multiplies
//
// Rows past n and the k past an odd k are never used; PackWeight writes 0 to the latter.
#pragma once

#include <cstdint>

namespace spin::cpu {

inline constexpr int32_t kPanelRows = 32;

}  // namespace spin::cpu
