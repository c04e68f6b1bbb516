// The record of a cluster in the summary pool (cluster_params.h).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/stream_view.h"
#include "kernels/params.h"

namespace spin::cpu {

template <typename T>
const T* ClusterRecordAt(const KvTables& t, const StreamView& stream, int32_t cluster) {
  return static_cast<const T*>(t.summaries) + stream.Summary(cluster) * t.geometry.summary_elements;
}

template <typename T>
ClusterRun RunOf(const T* record, int32_t head_dim) {
  int32_t words[2];
  static_assert(sizeof(words) == sizeof(ClusterRun));
  std::memcpy(words, record + 2 * head_dim, sizeof(words));
  return {.begin = words[0], .size = words[1]};
}

inline ClusterRun ClusterRunAt(const KvTables& t, const StreamView& stream, int32_t cluster) {
  const KvGeometry& g = t.geometry;
  return g.dtype == DType::kF32 ? RunOf(ClusterRecordAt<float>(t, stream, cluster), g.head_dim)
                                : RunOf(ClusterRecordAt<uint16_t>(t, stream, cluster), g.head_dim);
}

}  // namespace spin::cpu
