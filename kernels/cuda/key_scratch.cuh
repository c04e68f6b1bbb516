// Part `i` of the scratch of KeyFactorPrefillParams, cut into its arrays.
#pragma once

#include "kernels/cuda/key_stages.h"

namespace spin::cuda {

__device__ __forceinline__ KeyScratch ScratchOf(const KeyFactorPrefillParams& p, int32_t i) {
  const KvGeometry& g = p.tables.geometry;
  const int64_t width = g.key_width(), rank = g.key_rank;
  char* begin =
      static_cast<char*>(p.scratch) + i * KeyFactorScratchBytes(g.key_width(), g.key_rank);
  KeyScratch s;
  s.gram = reinterpret_cast<float*>(begin);
  s.q = s.gram + width * width;
  s.z = s.q + width * rank;
  s.products = reinterpret_cast<double*>(s.z + width * rank);
  s.inverse = s.products + rank * rank;
  return s;
}

}  // namespace spin::cuda
