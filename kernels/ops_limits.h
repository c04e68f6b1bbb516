// What the kernel families of a backend serve of a model and a configuration, where that is less than everything. The
// server compares once, before it reads weights: a family's precondition must not be what an operator meets first.
#pragma once

#include <cstdint>
#include <limits>

namespace spin {

struct OpsLimits {
  static constexpr int32_t kNone = std::numeric_limits<int32_t>::max();

  int32_t query_group = kNone;   // query heads of a KV head
  int32_t vocab_size = kNone;    // of what is sampled from
  int32_t tile_tokens = kNone;   // of a prefill tile
  int32_t factor_width = kNone;  // KV heads x head_dim, where keys have factors (key_rank)
  // Where partitions are clusters:
  int32_t cluster_streams = kNone;     // batch places x KV heads of a step
  int32_t retrieved_clusters = kNone;  // of one stream in a step
};

}  // namespace spin
