// ShadowKV's low-rank keys at prefill: the order of the steps.
#include <algorithm>

#include "common/check.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/key_stages.h"

namespace spin::cuda {

void KeyFactorPrefill(const KeyFactorPrefillParams& p, cudaStream_t stream) {
  CheckKeyGeometry(p.tables, p.rope_table);
  SPIN_CHECK(p.scratch != nullptr);
  if (p.num_slices == 0) return;
  RotateStagedKeysBack(p, stream);
  for (int32_t first = 0; first < p.num_slices; first += kKeySlices) {
    const int32_t count = std::min(kKeySlices, p.num_slices - first);
    SumKeyGrams(p, first, count, stream);
    FindKeyBases(p, first, count, stream);
  }
  WriteKeyFactors(p, stream);
}

void CheckKeyGeometry(const KvTables& tables, const float* rope_table) {
  const KvGeometry& g = tables.geometry;
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK_EQ(g.page_tokens, kLandmarkTokens);
  SPIN_CHECK(g.key_rank > 0 && g.key_rank % kKeyRankStep == 0);
  SPIN_CHECK(g.key_rank <= kMaxKeyRank && g.key_rank <= g.key_width());
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim + g.key_piece());
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(rope_table != nullptr && tables.key_basis != nullptr);
}

}  // namespace spin::cuda
