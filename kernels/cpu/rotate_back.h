// A key or query head as it was before rotation.
#pragma once

#include <cstdint>

namespace spin::cpu {

// Undoes the rotation of the head x by `row`, a position's row of `rope_table` [position][d] (RopeParams).
void RotateBack(const float* x, int32_t d, const float* rope_table, const float* row, float* out);
void RotateBack(const uint16_t* x, int32_t d, const float* rope_table, const float* row,
                float* out);  // bf16

}  // namespace spin::cpu
