// The clusters of one segment of one KV head: k-means over its keys, and the order in which its tokens are stored.
// cluster_params.h has the rule. Serial: the bits depend on the segment alone.
#pragma once

#include <cstdint>

#include "kernels/params.h"

namespace spin::cpu {

// Consecutive pages of one KV head; token t is token t % P of page t / P.
struct ClusterSegment {
  const void* pages = nullptr;
  int32_t num_tokens = 0;  // a multiple of kExtentTokens, at most kClusterSegmentTokens
  int32_t num_fixed = 0;   // so many first tokens keep their places: the sink of a sequence

  int32_t num_clusters() const { return num_tokens / kClusterTokens; }
};

// The places of a segment, counted from its begin. In the scratch.
struct SegmentOrder {
  const int32_t* token = nullptr;  // [num_tokens] the token that is stored at a place
  const int32_t* begin = nullptr;  // [num_clusters + 1] cluster c: places begin[c] .. begin[c + 1]
};

// What FindClusters needs for a segment of at most `max_tokens`; a multiple of 64, as the scratch's address.
int64_t ClusterScratchBytes(const KvGeometry& g, int32_t max_tokens);

SegmentOrder FindClusters(const KvGeometry& g, const ClusterSegment& segment, void* scratch);

// The record of cluster `c`, whose segment begins at token place `first`.
void WriteClusterRecord(const KvGeometry& g, const ClusterSegment& segment,
                        const SegmentOrder& order, int32_t c, int32_t first, void* record);

}  // namespace spin::cpu
