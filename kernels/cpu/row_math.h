// Reductions over one row of floats (logits, scores), vectorised, each in a fixed order: lane l of
// 16 takes elements l, l + 16, ..., then lanes are combined in order. A result depends on the row
// alone, not on threads or neighbours.
//
// NaN rule: a NaN element is never a maximum and weighs nothing.
#pragma once

#include <cstdint>

namespace spin::cpu {

// The greatest element; -infinity when there is none.
float RowMax(const float* x, int64_t n);

// Index of the greatest element, the lowest of equals; 0 when there is none.
int32_t RowArgMax(const float* x, int64_t n);

// sum of exp((x_i - max) / temperature), in double. REQUIRES: max = RowMax, finite; temperature >
// 0. With `weights`, its terms as well [n]: 1 for the maximum, 0 where exp would be below 2^-125.
double RowExpSum(const float* x, int64_t n, float max, float temperature, float* weights);

}  // namespace spin::cpu
