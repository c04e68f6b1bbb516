// Scratch that RetroInfer's Index takes a thread of the pool (cluster_index.cc).
#pragma once

#include <cstdint>

#include "kernels/params.h"

namespace spin::cpu {

int64_t ClusterPrefillThreadBytes(const KvGeometry& g, int32_t staging_pages);
int64_t ClusterDecodeThreadBytes(const KvGeometry& g);

}  // namespace spin::cpu
