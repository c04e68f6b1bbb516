// The products of low-rank keys on the CPU: every output is one sum in one order, whatever the threads do.
#pragma once

#include <cstdint>

#include "common/thread_pool.h"

namespace spin::cpu {

// The scratch of KeyFactorPrefillParams for one slice.
struct KeyScratch {
  KeyScratch(void* scratch, int32_t width, int32_t rank);

  float* gram;       // [width][width]
  float* q;          // [width][rank]
  float* z;          // [width][rank]
  double* products;  // [rank][rank]
  double* inverse;   // [rank]
};

// gram, on and right of its diagonal, += x^T x of n tokens x [n][width].
void AddGram(const float* x, int32_t n, int32_t width, float* gram, ThreadPool& pool);

// From the upper half of gram: q's columns are orthonormal and span its greatest eigenvectors (KeyFactorPrefillParams).
void FindSubspace(const KeyScratch& scratch, int32_t width, int32_t rank, ThreadPool& pool);

// out [8][rank] = x [8][width] basis [width][rank].
void ProjectPage(const float* x, const float* basis, int32_t width, int32_t rank, float* out);
void ProjectPage(const float* x, const uint16_t* basis, int32_t width, int32_t rank,
                 float* out);  // bf16

// out [8][d] = factor [8][rank] times basis [d][rank] transposed.
void ExpandPage(const float* factor, const float* basis, int32_t d, int32_t rank, float* out);
void ExpandPage(const float* factor, const uint16_t* basis, int32_t d, int32_t rank,
                float* out);  // bf16

}  // namespace spin::cpu
