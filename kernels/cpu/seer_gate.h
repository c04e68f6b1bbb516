// The arithmetic of a gate of SeerAttention-R (SeerGate in params.h), one vector at a time and in one order, so that
// Index in prefill and in decode give a page the same bits.
#pragma once

#include <cstdint>

#include "kernels/params.h"

namespace spin::cpu {

inline constexpr int32_t kMaxGateDim = 128;

// out[i] = w[i] . x for n rows of k elements one after another; k is a multiple of 16.
void GateProducts(const float* w, int32_t n, int32_t k, const float* x, float* out);
void GateProducts(const uint16_t* w, int32_t n, int32_t k, const float* x, float* out);  // bf16

// In place: RMSNorm with the weights `norm` (null: none), then the rotation by `row`.
void NormAndRotate(float* x, int32_t d, const float* norm, const float* row);

}  // namespace spin::cpu
