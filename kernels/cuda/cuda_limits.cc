#include "kernels/cuda/cuda_limits.h"

namespace spin::cuda {

OpsLimits LimitsOf(const KvGeometry& geometry, int64_t shared_bytes) {
  int32_t retrieved = 0;  // the greatest power of two that fits
  for (int32_t n = 1; n <= 1 << 20; n *= 2) {
    if (ClusterRoom(geometry, n).Bytes() + kClusterStaticBytes <= shared_bytes) retrieved = n;
  }
  return {.query_group = kMaxQueryGroup,
          .vocab_size = kMaxVocabSize,
          .tile_tokens = kMaxTileTokens,
          .factor_width = static_cast<int32_t>((shared_bytes - FactorPageBytes(0)) /
                                               (FactorPageBytes(1) - FactorPageBytes(0))),
          .cluster_streams = kMaxClusterStreams,
          .retrieved_clusters = retrieved};
}

}  // namespace spin::cuda
