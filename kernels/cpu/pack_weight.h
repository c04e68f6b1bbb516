// Ops::PackWeight and what belongs to it, for the CPU layout of weight_layout.h.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace spin::cpu {

// Bytes of an n x k weight. `dtype`: float32 or bfloat16.
int64_t PackedWeightBytes(int32_t n, int32_t k, DType dtype);

// See Ops::PackWeight.
void PackWeight(void* dst, int32_t n, int32_t k, DType dtype, int32_t row_begin, int32_t rows,
                const void* src, DType src_dtype);

}  // namespace spin::cpu
