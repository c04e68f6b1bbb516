// Parameters of RetroInfer (arXiv 2505.02922): keys clustered per KV head, few clusters attended to exactly, many more
// by their centroids. Conventions: params.h.
//
// Clusters are partitions of variable size. The tokens of a segment are stored in the order of their clusters, so a
// cluster is a run of token places; places map to pages as everywhere. A page that two clusters share is attended to
// under a mask of its tokens (PagedAttentionParams::page_mask), so nothing is padded and a sequence takes as many pages
// as without clusters.
//
//   tokens 0..7                              the sink: page 0, never moved, always attended to
//   tokens 8..IndexedTokens(length)          clustered, segment by segment
//   tokens IndexedTokens(length)..length     in order, always attended to (64 to 575 tokens)
//
// A segment is the indexed part of a prompt in steps of 8,192 tokens (the last one shorter), or the extent that a
// decode step finds 64 tokens behind it. Segments are whole extents; a segment of n tokens has n / 16 clusters,
// numbered by their begin: cluster ids of an extent are 32 i .. 32 i + 31, whatever segment it belongs to.
#pragma once

#include <cstdint>

#include "kernels/batch.h"
#include "kernels/kv_layout.h"

namespace spin {

inline constexpr int32_t kClusterTokens = 16;     // on average: partition_tokens of the geometry
inline constexpr int32_t kClusterPageTokens = 8;  // page_tokens must be so: a mask is a byte
inline constexpr int32_t kClusterSegmentTokens = 8192;  // of a prompt
inline constexpr int32_t kClusterLocalTokens = 64;      // never clustered: unsettled_tokens
inline constexpr int32_t kClusterIterations = 10;  // the last one assigns and takes plain means
// Of a record, behind centroid and mean value: records, and centroids in them, are whole lines of 128 bytes, or a
// centroid would be scored with half a line of its neighbour (bf16).
inline constexpr int32_t kClusterTailElements = 64;

// Tokens of a sequence of this length that are in clusters (the sink among them).
constexpr int64_t IndexedTokens(int64_t length) {
  return length < kClusterLocalTokens
             ? 0
             : (length - kClusterLocalTokens) / kExtentTokens * kExtentTokens;
}

// The record of a cluster, summary_elements = 2 d + kClusterTailElements of the pages' type: centroid [d] (mean of its
// keys after RoPE), mean of its values [d], then ClusterRun in the first 8 bytes of the tail. Sums in f32, in the order
// of the places; a cluster without tokens has size 0, begins where the next one does, and NaN for the first element of
// its centroid: who scores it needs no more of the record.
struct ClusterRun {
  int32_t begin = 0;  // token place in the sequence
  int32_t size = 0;
};

// k-means of a segment, for each KV head (algorithms of the paper, section 4.2), over the n tokens that are clustered
// (all but the sink): x' = key - mean of their keys; first centroids the x' of C tokens at even spacing (token (2 i +
// 1) n / (2 C) of the n); 9 times: each token to the centroid of largest inner product (ties to the lower id),
// centroid = mean of its x' divided by its norm (one without tokens, or of norm 0, stays); then one more assignment,
// and plain means of the keys. Products are of `dtype` values summed in f32 (x' and centroids rounded to it); all
// else f32. Tokens of a cluster keep their order.
struct ClusterIndexPrefillParams {
  const PrefillSlice* slices = nullptr;
  int32_t num_slices = 0;
  int32_t layer = 0;
  KvTables tables;
  Staging staging;
  // Out [Hkv][num_pages * P]: the staging place whose token is stored at this place. All places of the slices are
  // written; what is not clustered keeps its place. OffloadParams::order.
  int32_t* order = nullptr;
  void* scratch = nullptr;  // Ops::ClusterPrefillScratchBytes
};

// A step whose token makes IndexedTokens grow (from position to position + 1) clusters the extent that became
// indexed: reads its tokens from slots (where resident) or host pages, stores them in the new order in the same pages,
// on the host and in slots alike, and writes the records. Other rows are left alone.
struct ClusterIndexDecodeParams {
  DecodeRows decode;
  int32_t layer = 0;
  KvTables tables;
  void* scratch = nullptr;  // Ops::ClusterDecodeScratchBytes
};

// What a Select takes of C clusters: retrieval max(min_retrieve, round(C * retrieve)) or all there are, as many pages
// as MaxPages lets it, and estimation round(C * estimate) behind them in rank. As parts per thousand.
struct ClusterBudget {
  int32_t retrieve_permille = 18;  // 0: min_retrieve alone
  int32_t estimate_permille = 232;
  int32_t min_retrieve = 1;  // clusters, >= 1
  constexpr int32_t Retrieve(int32_t clusters) const {
    const int32_t share = (clusters * retrieve_permille + 500) / 1000;
    const int32_t n = share > min_retrieve ? share : min_retrieve;
    return n < clusters ? n : clusters;
  }
  constexpr int32_t Estimate(int32_t clusters) const {
    const int32_t n = (clusters * estimate_permille + 500) / 1000;
    const int32_t rest = clusters - Retrieve(clusters);
    return n < rest ? n : rest;
  }
  // The most pages that a retrieval of so many clusters may touch: 4 a cluster of mean size (2 whole, 2 shared).
  static constexpr int32_t kPagesEach = 4;
  constexpr int32_t MaxPages(int32_t clusters) const { return kPagesEach * Retrieve(clusters); }
};

// From scores (ScoreSummaries with kClusters) to pages. Clusters rank by score, ties to the lower id; those without
// tokens are not ranked. The first Retrieve(C) are taken in rank order while the pages they touch (each cluster's own
// count, shared pages counted twice) add up to MaxPages(C) at most; one that does not fit is estimated instead, the
// walk goes on. ids: page 0, the pages of the taken clusters, all pages behind the index, ascending, each once;
// page_mask: bit t of a page's byte = its token t is attended to (page 0 and those behind the index: all that exist).
// Of a row that is to be attended to as a whole: all pages, all that exists of them, and nothing is estimated.
struct ClusterSelectParams {
  DecodeRows decode;
  int32_t layer = 0;
  KvTables tables;
  ClusterBudget budget;
  // [max_rows] or null: > 0 for rows that are attended to as a whole, and then not less than their pages.
  const int32_t* row_pages = nullptr;
  const float* scores = nullptr;  // [max_batch][Hkv][max_pages]: of clusters
  int32_t* ids = nullptr;         // [max_batch][Hkv][max_selected]
  int32_t* count = nullptr;       // [max_batch][Hkv]
  uint8_t* page_mask = nullptr;   // [max_batch][Hkv][max_selected]
  int32_t max_selected = 0;
  int32_t* estimate_ids = nullptr;    // [max_batch][Hkv][max_estimate] ascending
  int32_t* estimate_count = nullptr;  // [max_batch][Hkv]
  int32_t max_estimate = 0;           // >= Retrieve + Estimate of the longest sequence
};

// Attention to clusters by their records: each as `size` tokens with the centroid for key and the mean for value.
// `partial` of a query head: sum of size exp(logit - m) mean [d], m = the largest logit, sum of size exp(logit - m);
// logit = q.centroid / sqrt(d), natural base; without clusters 0, -infinity, 0. PagedAttentionParams::estimate.
struct ClusterEstimateParams {
  DecodeRows decode;
  const void* qkv = nullptr;  // [max_batch][(Hq + 2 Hkv) * d] act, after RoPE
  int32_t layer = 0;
  KvTables tables;
  const int32_t* estimate_ids = nullptr;
  const int32_t* estimate_count = nullptr;
  int32_t max_estimate = 0;
  float* partial = nullptr;  // [max_batch][Hq][d + 2]
};

}  // namespace spin
