// Qwen3-8B, and what the rows of spin_bench kernels share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tools/bench/kernel_bench.h"

namespace spin::bench {

inline constexpr int32_t kHidden = 4096;
inline constexpr int32_t kIntermediate = 12288;
inline constexpr int32_t kQHeads = 32;
inline constexpr int32_t kKvHeads = 8;
inline constexpr int32_t kHeadDim = 128;
inline constexpr int32_t kQkv = (kQHeads + 2 * kKvHeads) * kHeadDim;
inline constexpr int32_t kVocab = 151936;

// Copies of a call's data that together are several times any last-level cache.
inline int64_t CopiesFor(int64_t bytes) {
  return std::clamp<int64_t>((int64_t{320} << 20) / std::max<int64_t>(bytes, 1), 2, 64);
}

inline KvGeometry Geometry(int32_t page_tokens, int32_t max_rows, int32_t max_extents) {
  KvGeometry g;
  g.num_layers = 1;
  g.num_kv_heads = kKvHeads;
  g.num_q_heads = kQHeads;
  g.head_dim = kHeadDim;
  g.page_tokens = page_tokens;
  g.max_rows = max_rows;
  g.max_extents = max_extents;
  g.summary_elements = 2 * kHeadDim;
  return g;
}

// A step of all rows 0.., each at its position.
inline DecodeRows MakeDecodeRows(BenchMemory& memory, const std::vector<int32_t>& positions) {
  const auto batch = static_cast<int32_t>(positions.size());
  std::vector<int32_t> rows;
  for (int32_t b = 0; b < batch; ++b) rows.push_back(b);
  return {.max_batch = batch,
          .num_rows = memory.Ints(std::vector<int32_t>{batch}),
          .rows = memory.Ints(rows),
          .token = memory.Ints(std::vector<int32_t>(positions.size(), 0)),
          .position = memory.Ints(positions)};
}

}  // namespace spin::bench
