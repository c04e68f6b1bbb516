// Which centroid a key belongs to: a matrix product whose result is never stored. Included by isa_*.cc alone, see
// simd.h.
//
// For a few tokens at a time, all centroids, sixteen a vector: of each token and lane the greatest product so far and
// whose it was. Each product is one chain of multiply-adds in the order of the dimensions: a token's result depends on
// the token and the centroids alone.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace spin::cpu {
namespace {

// The greatest lane, the lowest id of equals. Ids are `base` (exact in floats) plus the lane.
inline int32_t BestOf(V16 best, V16 base) {
  float value[16], first[16];
  Store(value, best);
  Store(first, base);
  float top = value[0];
  int32_t id = static_cast<int32_t>(first[0]);
  for (int lane = 1; lane < 16; ++lane) {
    const int32_t lane_id = static_cast<int32_t>(first[lane]) + lane;
    if (value[lane] > top || (value[lane] == top && lane_id < id)) {
      top = value[lane];
      id = lane_id;
    }
  }
  return id;
}

template <int kTokens>
inline void AssignGroup(const float* x, int32_t d, const float* panels, int32_t clusters,
                        int32_t* cluster) {
  V16 best[kTokens], base[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    best[t] = Set(-__builtin_inff());
    base[t] = Zero();
  }
  for (int32_t first = 0; first < clusters; first += 16 * kTileVectors) {
    const float* panel =
        panels + int64_t{first / kClusterPanel} * d * kClusterPanel + first % kClusterPanel;
    V16 sum[kTokens][kTileVectors];
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      for (int v = 0; v < kTileVectors; ++v) sum[t][v] = Zero();
    }
    for (int32_t c = 0; c < d; ++c, panel += kClusterPanel) {
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const V16 value = Set(x[t * d + c]);
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
          sum[t][v] = Fma(value, Load(panel + 16 * v), sum[t][v]);
        }
      }
    }
    for (int v = 0; v < kTileVectors; ++v) {
      const V16 id = Set(static_cast<float>(first + 16 * v));
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        base[t] = WhereGreater(sum[t][v], best[t], id, base[t]);
        best[t] = WhereGreater(sum[t][v], best[t], sum[t][v], best[t]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) cluster[t] = BestOf(best[t], base[t]);
}

void AssignClusters(const float* x, int32_t n, int32_t d, const float* panels, int32_t clusters,
                    int32_t* cluster) {
  int32_t t = 0;
  for (; t + kTileRows <= n; t += kTileRows) {
    AssignGroup<kTileRows>(x + int64_t{t} * d, d, panels, clusters, cluster + t);
  }
  for (; t < n; ++t) AssignGroup<1>(x + int64_t{t} * d, d, panels, clusters, cluster + t);
}

}  // namespace
}  // namespace spin::cpu
