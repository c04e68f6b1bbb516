// A small KV cache for kernel tests: every pool, every table, memory poisoned with NaN, extents
// handed out in a shuffled order so that no test passes because addresses happen to be consecutive.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "common/math.h"
#include "common/random.h"
#include "common/thread_pool.h"
#include "kernels/cpu/families.h"
#include "kernels/params.h"
#include "tests/kernels/kernel_testing.h"

namespace spin::testing {

inline KvGeometry SmallGeometry(DType dtype, int32_t head_dim, int32_t page_tokens) {
  return {.num_layers = 2,
          .num_kv_heads = 3,
          .num_q_heads = 6,
          .head_dim = head_dim,
          .page_tokens = page_tokens,
          .max_rows = 4,
          .max_extents = 3,
          .summary_elements = 2 * head_dim,
          .dtype = dtype};
}

class KvWorld {
 public:
  explicit KvWorld(const KvGeometry& g, uint64_t seed = 1)
      : geometry(g), num_extents(g.max_rows * g.num_layers * g.max_extents), pool(2) {
    const auto directory = static_cast<size_t>(num_extents);
    const auto pages = static_cast<size_t>(num_extents) * g.pages_per_extent();
    for (auto* dir : {&slot_dir, &host_dir, &summary_dir, &meta_dir})
      dir->assign(directory, kAbsent);
    placement.assign(static_cast<size_t>(g.max_rows), 0);
    num_slots.assign(static_cast<size_t>(g.max_rows * g.num_layers), 0);
    meta.assign(pages, 12345);  // what was there before means nothing
    slot_owner.assign(pages, 12345);
    slot_age.assign(pages, 77);
    slots.assign(pages * g.page_bytes(), 0xff);  // NaN in either type
    host.assign(pages * g.page_bytes(), 0xff);
    summaries.assign(static_cast<size_t>(num_extents * g.summary_extent_bytes()), 0xff);
    key_basis.assign(static_cast<size_t>(g.max_rows * g.num_layers * g.key_basis_bytes()), 0xff);
    tables = {.geometry = g,
              .slot_dir = slot_dir.data(),
              .host_dir = host_dir.data(),
              .summary_dir = summary_dir.data(),
              .meta_dir = meta_dir.data(),
              .placement = placement.data(),
              .num_slots = num_slots.data(),
              .meta = meta.data(),
              .slot_owner = slot_owner.data(),
              .slot_age = slot_age.data(),
              .slots = slots.data(),
              .host_pages = host.data(),
              .summaries = summaries.data(),
              .key_basis = key_basis.data()};
    Random random(seed);
    for (auto* ids : {&free_slots, &free_host, &free_summaries, &free_meta}) {
      ids->resize(directory);
      std::iota(ids->begin(), ids->end(), 0);
      for (size_t i = ids->size(); i > 1; --i) {
        std::swap((*ids)[i - 1], (*ids)[random.Below(static_cast<uint32_t>(i))]);
      }
    }
  }

  void Apply(const std::vector<TableCommand>& commands) {
    cpu::UpdateTables({.commands = commands.data(),
                       .num_commands = static_cast<int32_t>(commands.size()),
                       .tables = tables},
                      pool);
  }

  // Gives a row all that `tokens` tokens need; `slot_budget` of a Tiered row is per stream, in
  // pages.
  void AddRow(int32_t row, Placement where, int32_t tokens, int32_t slot_budget = 0) {
    using enum TableCommandKind;
    const bool tiered = where == Placement::kTiered;
    const int32_t extents = CeilDiv(tokens, kExtentTokens);
    const int32_t slot_extents = tiered ? CeilDiv(slot_budget, geometry.extent_pages()) : extents;
    std::vector<TableCommand> c = {{kSetPlacement, row, 0, 0, static_cast<int32_t>(where)}};
    for (int32_t layer = 0; layer < geometry.num_layers; ++layer) {
      for (int32_t i = 0; i < slot_extents; ++i) {
        c.push_back({kSetSlotExtent, row, layer, i, Take(free_slots)});
      }
      for (int32_t i = 0; i < extents; ++i) {
        c.push_back({kSetSummaryExtent, row, layer, i, Take(free_summaries)});
        if (!tiered) continue;
        c.push_back({kSetHostExtent, row, layer, i, Take(free_host)});
        c.push_back({kSetMetaSegment, row, layer, i, Take(free_meta)});
      }
      if (tiered) c.push_back({kSetNumSlots, row, layer, 0, slot_budget});
    }
    Apply(c);
  }

  // Index in its pool of entry i of a stream, straight from the definition.
  int64_t Index(const std::vector<int32_t>& dir, int32_t row, int32_t layer, int32_t head,
                int32_t i) const {
    const int32_t e = geometry.extent_pages();
    const int32_t extent = dir[static_cast<size_t>(geometry.DirIndex(row, layer, i / e))];
    REQUIRE(extent >= 0);
    return geometry.PageIndex(extent, head, i % e);
  }

  // Element `offset` of page `index` of a pool.
  float At(const std::vector<uint8_t>& bytes, int64_t index, int64_t offset) const {
    const int64_t element = index * geometry.page_elements() + offset;
    if (geometry.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, bytes.data() + element * 4, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + element * 2, 2);
    return Bf16ToFloat(bits);
  }

  // A staging area of `pages` pages a head: random where tokens are, elsewhere 3.4e38, which no pool holds, so
  // that a copy of it shows.
  Elements MakeStaging(int32_t pages, const std::vector<PrefillSlice>& slices,
                       Random& random) const {
    Elements staging(geometry.dtype,
                     int64_t{geometry.num_kv_heads} * pages * geometry.page_elements());
    std::memset(staging.data(), 0x7f, static_cast<size_t>(staging.size() * SizeOf(geometry.dtype)));
    for (const PrefillSlice& slice : slices) {
      for (int32_t head = 0; head < geometry.num_kv_heads; ++head) {
        for (int32_t t = 0; t < slice.prefix_tokens + slice.num_tokens; ++t) {
          const int64_t page = int64_t{head} * pages + slice.page_begin + t / geometry.page_tokens;
          for (int32_t c = 0; c < geometry.head_dim; ++c) {
            const int32_t in_page = t % geometry.page_tokens;
            const int64_t base = page * geometry.page_elements();
            staging.Set(base + geometry.KeyOffset(in_page) + c, 2 * random.Uniform() - 1);
            staging.Set(base + geometry.ValueOffset(in_page) + c, 2 * random.Uniform() - 1);
          }
        }
      }
    }
    return staging;
  }

  static int32_t Take(std::vector<int32_t>& ids) {
    REQUIRE(!ids.empty());
    const int32_t id = ids.back();
    ids.pop_back();
    return id;
  }

  KvGeometry geometry;
  int32_t num_extents;  // of each pool
  ThreadPool pool;
  KvTables tables;
  std::vector<int32_t> slot_dir, host_dir, summary_dir, meta_dir, placement, num_slots;
  std::vector<int32_t> meta, slot_owner;
  std::vector<uint8_t> slot_age, slots, host, summaries, key_basis;
  std::vector<int32_t> free_slots, free_host, free_summaries, free_meta;
};

// A decode step's rows.
class StepRows {
 public:
  StepRows(std::vector<int32_t> used, int32_t max_rows)
      : rows(std::move(used)),
        count(static_cast<int32_t>(rows.size())),
        token(static_cast<size_t>(max_rows)),
        position(static_cast<size_t>(max_rows)) {}

  DecodeRows view() {
    return {.max_batch = count,
            .num_rows = &count,
            .rows = rows.data(),
            .token = token.data(),
            .position = position.data()};
  }

  std::vector<int32_t> rows;
  int32_t count;
  std::vector<int32_t> token, position;
};

// What the pipeline does behind Index with rows whose only page of interest is the tail: it gets a slot, the token is
// appended, a missing tail is fetched. Links append_kv, gather_pages and lookup. REQUIRES: one position for all rows.
inline RetrieveCounters AppendToken(KvWorld& world, StepRows& step, const Elements& qkv,
                                    int32_t layer) {
  const KvGeometry& g = world.geometry;
  const DecodeRows rows = step.view();
  const auto streams = static_cast<size_t>(step.count * g.num_kv_heads);
  const int32_t tail = step.position[static_cast<size_t>(step.rows[0])] / g.page_tokens;
  const std::vector<int32_t> ids(streams, tail), count(streams, 1);
  std::vector<int32_t> list(streams), list_len(streams), copy_dst(streams), copy_len(streams);
  std::vector<int64_t> copy_src(streams);
  std::vector<RetrieveCounters> counters(static_cast<size_t>(g.max_rows));
  cpu::Lookup({.decode = rows,
               .ids = ids.data(),
               .count = count.data(),
               .max_selected = 1,
               .layer = layer,
               .tables = world.tables,
               .page_list = list.data(),
               .list_len = list_len.data(),
               .max_list = 1,
               .copy_src = copy_src.data(),
               .copy_dst = copy_dst.data(),
               .copy_len = copy_len.data(),
               .counters = counters.data()},
              world.pool);
  cpu::AppendKv({.decode = rows, .qkv = qkv.data(), .layer = layer, .tables = world.tables},
                world.pool);
  cpu::GatherPages({.decode = rows,
                    .tables = world.tables,
                    .copy_src = copy_src.data(),
                    .copy_dst = copy_dst.data(),
                    .copy_len = copy_len.data(),
                    .max_list = 1},
                   world.pool);
  RetrieveCounters total;
  for (const RetrieveCounters& row : counters) total += row;
  return total;
}

// A Tiered row's page is on the host alone, as after a suspension; its slots hold NaN.
inline void EvictPage(KvWorld& world, int32_t row, int32_t layer, int32_t page) {
  const KvGeometry& g = world.geometry;
  for (int32_t head = 0; head < g.num_kv_heads; ++head) {
    int32_t& local =
        world.meta[static_cast<size_t>(world.Index(world.meta_dir, row, layer, head, page))];
    if (local == kAbsent) continue;
    const int64_t slot = world.Index(world.slot_dir, row, layer, head, local);
    world.slot_owner[static_cast<size_t>(slot)] = kAbsent;
    std::memset(world.slots.data() + slot * g.page_bytes(), 0xff,
                static_cast<size_t>(g.page_bytes()));
    local = kAbsent;
  }
}

}  // namespace spin::testing
