// The steps of KeyFactorPrefill (params.h), each a launcher of its own file; key_factor.cc has their order.
#pragma once

#include <driver_types.h>

#include <cstdint>

#include "kernels/params.h"

namespace spin::cuda {

// The scratch of one slice.
struct KeyScratch {
  float* gram;       // [width][width]
  float* q;          // [width][rank]
  float* z;          // [width][rank]
  double* products;  // [rank][rank]
  double* inverse;   // [rank]
};

// Keys in staging of slices that get a factor: as before rotation.
void RotateStagedKeysBack(const KeyFactorPrefillParams& p, cudaStream_t stream);  // key_rows.cu
// Slices first .. first + count - 1 take the first `count` parts of the scratch. gram = K^T K, whole.
void SumKeyGrams(const KeyFactorPrefillParams& p, int32_t first, int32_t count,
                 cudaStream_t stream);  // key_gram.cu
// From their Gram matrices to their bases in the tables.
void FindKeyBases(const KeyFactorPrefillParams& p, int32_t first, int32_t count,
                  cudaStream_t stream);  // key_subspace.cu
// Factors of all complete pages of all slices.
void WriteKeyFactors(const KeyFactorPrefillParams& p, cudaStream_t stream);  // key_rows.cu

}  // namespace spin::cuda
