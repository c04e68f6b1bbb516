// What the CUDA families serve (Ops::Limits). No CUDA headers: machines without a GPU test it.
#pragma once

#include <bit>
#include <cstdint>

#include "common/math.h"
#include "kernels/kv_layout.h"
#include "kernels/ops_limits.h"

namespace spin::cuda {

inline constexpr int32_t kMaxQueryGroup = 8;          // the columns of a product on tensor cores
inline constexpr int32_t kMaxVocabSize = 1 << 19;     // so that the mass of a row fits 64 bits
inline constexpr int32_t kMaxTileTokens = 65535;      // of a grid in y
inline constexpr int32_t kMaxClusterStreams = 65536;  // a ticket each

// Dynamic shared memory of ClusterSelect: 16 bytes a cluster that may be retrieved, their number rounded up to a power
// of two, for ranking; a byte a page, a bit a cluster of the longest sequence. Its static variables are apart.
struct ClusterRoom {
  ClusterRoom(const KvGeometry& g, int32_t retrieved_clusters)
      : retrieved(static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(retrieved_clusters)))),
        page_words(RoundUp(g.max_pages(), 16) / 4),
        cluster_words(CeilDiv(g.max_extents * g.extent_partitions(), 32)) {}
  int64_t Bytes() const { return 4 * (int64_t{4} * retrieved + page_words + cluster_words); }

  int32_t retrieved, page_words, cluster_words;
};
inline constexpr int64_t kClusterStaticBytes = 12 << 10;  // at most

// Shared memory of KeyFactorDecode: the keys of a page as floats, and the warps' sums.
constexpr int64_t FactorPageBytes(int32_t key_width) {
  return int64_t{key_width} * 8 * 4 + (8 << 10);
}

// `shared_bytes`: the most that a thread block may have on the device.
OpsLimits LimitsOf(const KvGeometry& geometry, int64_t shared_bytes);

}  // namespace spin::cuda
