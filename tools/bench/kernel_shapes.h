// Qwen3-8B, and what the rows of spin_bench kernels share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "common/random.h"
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

// 0 .. n - 1 in a seeded random order: extents and slots are never handed out in a row for long.
inline std::vector<int32_t> Shuffled(int32_t n, uint64_t seed = 1) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  Random random(seed);
  for (size_t i = ids.size(); i > 1; --i) {
    std::swap(ids[i - 1], ids[random.Below(static_cast<uint32_t>(i))]);
  }
  return ids;
}

// Tables of `batch` rows of `tokens`, all Tiered with `num_slots` local slots a stream or all Resident.
inline KvTables MakeTables(BenchMemory& memory, const KvGeometry& g, int32_t batch,
                           int32_t num_slots, bool summaries) {
  const bool tiered = num_slots > 0;
  KvTables t;
  t.geometry = g;
  const int32_t extents = batch * g.max_extents;
  t.slot_dir = memory.Ints(Shuffled(extents, 1));
  t.host_dir = memory.Ints(Shuffled(extents, 2));
  t.summary_dir = memory.Ints(Shuffled(extents, 3));
  t.meta_dir = memory.Ints(Shuffled(extents, 4));
  t.placement = memory.Ints(std::vector<int32_t>(
      static_cast<size_t>(batch),
      static_cast<int32_t>(tiered ? Placement::kTiered : Placement::kResident)));
  t.num_slots = memory.Ints(std::vector<int32_t>(static_cast<size_t>(batch), num_slots));
  const int64_t pages = int64_t{extents} * g.pages_per_extent();
  t.meta = memory.Ints(std::vector<int32_t>(static_cast<size_t>(pages), kAbsent));
  t.slot_owner = memory.Ints(std::vector<int32_t>(static_cast<size_t>(pages), kAbsent));
  t.slot_age = static_cast<uint8_t*>(memory.Zeros(pages));
  if (summaries) t.summaries = memory.RandomBf16(pages * g.summary_elements);
  return t;
}

}  // namespace spin::bench
