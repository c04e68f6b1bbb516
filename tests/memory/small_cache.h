// What the tests of the façade share: a small cache, its options, and rows that run in it.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

#include "memory/kv_cache_manager.h"

namespace spin::testing {

using Kind = TableCommandKind;

inline constexpr LayerDemand kSparse = {
    .whole_context = false, .fixed_pages = 2, .selectable_pages = 3};
inline constexpr int32_t kLayers = 2;

struct Config {
  int32_t slot_extents = 16;
  int32_t host_extents = 64;
  PlacementPolicy placement = PlacementPolicy::kAuto;
  LayerDemand demand = kSparse;
  int32_t summary_elements = 0;
  int32_t unsettled_tokens = 0;
};

// Pages of 64 tokens: 8 an extent. A Tiered sparse stream gets min(pages, 2 + 2 * 3) = 8 slots: one
// extent a layer.
inline KvCacheOptions Options(const Config& c) {
  const KvGeometry g = {.num_layers = kLayers,
                        .num_kv_heads = 1,
                        .num_q_heads = 1,
                        .head_dim = 64,
                        .page_tokens = 64,
                        .max_rows = 6,
                        .max_extents = 8,
                        .summary_elements = c.summary_elements,
                        .unsettled_tokens = c.unsettled_tokens};
  KvCacheOptions o;
  o.plan =
      PlanMemory(g, HbmBytes(g, c.slot_extents, c.host_extents), c.host_extents * g.extent_bytes())
          .value();
  o.placement = c.placement;
  o.min_buffer_ratio = 1;
  o.max_buffer_ratio = 1;
  o.max_model_len = 4096;
  o.layers.assign(kLayers, c.demand);
  return o;
}

inline std::vector<TableCommand> Take(KvCacheManager& m, Kind kind) {
  std::vector<TableCommand> found;
  for (const TableCommand& c : m.TakeCommands()) {
    if (c.kind == kind) found.push_back(c);
  }
  return found;
}

inline RowId Start(KvCacheManager& m, int64_t prompt, int64_t reserve) {
  const auto rows = m.Admit(prompt, reserve, 1);
  REQUIRE(rows.has_value());
  m.FinishPrefill(*rows);
  m.CheckInvariants();
  return rows->front();
}

// The copies of demotions pass, until none is left. Returns the slot extents they read.
inline std::vector<int32_t> PassSpills(KvCacheManager& m) {
  std::vector<int32_t> slots;
  while (m.room_is_coming()) {
    m.TakeCommands();
    for (const TableCommand& c : m.TakeSpills(3)) {
      CHECK(c.kind == Kind::kSpillExtent);
      slots.push_back(c.value);
    }
    m.FinishSpills();
    m.CheckInvariants();
  }
  return slots;
}

}  // namespace spin::testing
