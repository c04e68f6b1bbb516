// Whether the backend's kernels serve what the model and the configuration ask of them.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "kernels/kv_layout.h"
#include "kernels/ops_limits.h"

namespace spin {

// What a server will ask.
struct BackendDemand {
  KvGeometry geometry;
  int32_t vocab_size = 0;
  int32_t max_num_seqs = 0;
  int32_t prefill_tile_tokens = 0;
  int32_t retrieved_clusters = 0;  // of one stream in a step; 0 where partitions are pages
};

// InvalidArgument by the key of config.json or of the configuration, with the limit.
absl::Status CheckBackendLimits(const OpsLimits& limits, const BackendDemand& demand);

}  // namespace spin
