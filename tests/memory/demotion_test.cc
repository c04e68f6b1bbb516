// What a demotion keeps, shares and spills. Contents are checked in tests/sim/memory_sim_test.cc.
#include "memory/demotion.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

namespace spin {
namespace {

using Kind = TableCommandKind;
constexpr LayerDemand kSparse = {.whole_context = false, .fixed_pages = 2, .selectable_pages = 10};

MemoryPlan Plan() {  // one layer, 8 pages an extent
  const KvGeometry g = {.num_layers = 1,
                        .num_kv_heads = 1,
                        .num_q_heads = 1,
                        .head_dim = 64,
                        .page_tokens = 64,
                        .max_rows = 3,
                        .max_extents = 8};
  return PlanMemory(g, HbmBytes(g, 12, 24), 24 * g.extent_bytes()).value();
}

// A Resident row of `extents` extents, its first `shared` those of `from`.
int32_t Open(RowTable& table, int32_t extents, int64_t length, int32_t shared, int32_t from) {
  const int32_t r = table.OpenRow();
  table.row(r).state = RowState::kReady;
  table.row(r).reserved_tokens = int64_t{extents} * kExtentTokens;
  table.row(r).length = length;
  table.row(r).prompt_tokens = std::min<int64_t>(length, shared * int64_t{kExtentTokens} + 1);
  table.SetPlacement(r, Placement::kResident);
  for (int32_t i = 0; i < extents; ++i) {
    if (i < shared && from != kAbsent) {
      table.Share(PoolKind::kSlot, r, 0, from);
    } else {
      table.Grant(PoolKind::kSlot, r, 0);
    }
  }
  return r;
}

std::vector<TableCommand> Of(std::span<const TableCommand> commands, Kind kind) {
  std::vector<TableCommand> found;
  std::copy_if(commands.begin(), commands.end(), std::back_inserter(found),
               [&](const TableCommand& c) { return c.kind == kind; });
  return found;
}

TEST_CASE("a row keeps its last extents with tokens as cache and spills all of them") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0);  // 12 slots: 2 extents
  const int32_t r = Open(table, 5, 4 * kExtentTokens - 10, 0, kAbsent);
  table.TakeCommands();
  DemoteRows(table, footprint, {&r, 1});
  table.CheckInvariants(footprint);
  const auto commands = table.TakeCommands();
  CHECK(Of(commands, Kind::kSpillExtent).size() == 4);
  CHECK(table.extent(PoolKind::kSlot, r, 0, 0) == 2);
  CHECK(table.extent(PoolKind::kSlot, r, 0, 1) == 3);
  CHECK(table.num_slots(r, 0) == 12);
  const auto binds = Of(commands, Kind::kBindSlots);
  REQUIRE(binds.size() == 1);
  CHECK(binds[0].index == 16);
  CHECK(binds[0].value == 32);
}

TEST_CASE("a row with few tokens keeps the extents behind them too, as its budget says") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0);
  const int32_t r = Open(table, 4, 100, 0, kAbsent);
  DemoteRows(table, footprint, {&r, 1});
  table.CheckInvariants(footprint);
  CHECK(table.num_mapped(PoolKind::kSlot, r, 0) == 2);
  CHECK(table.extent(PoolKind::kSlot, r, 0, 0) == 0);
  CHECK(table.num_mapped(PoolKind::kHost, r, 0) == 4);
}

TEST_CASE("rows of one prompt share its host extents; only the last holder keeps shared slots") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0);
  const int64_t length = 3 * kExtentTokens + 1;
  const int32_t a = Open(table, 4, length, 3, kAbsent);
  const int32_t b = Open(table, 4, length, 3, a);
  const RowId ids[] = {RowId{a}, RowId{b}};
  table.FormGroup(ids, 3);
  table.CheckInvariants(footprint);
  table.TakeCommands();
  const int32_t rows[] = {a, b};
  DemoteRows(table, footprint, rows);
  table.CheckInvariants(footprint);
  const auto commands = table.TakeCommands();
  CHECK(Of(commands, Kind::kSpillExtent).size() == 5);  // 3 + 1 of a, 1 of b
  for (int32_t i = 0; i < 3; ++i) {
    CHECK(table.extent(PoolKind::kHost, a, 0, i) == table.extent(PoolKind::kHost, b, 0, i));
  }
  CHECK(table.extent(PoolKind::kHost, a, 0, 3) != table.extent(PoolKind::kHost, b, 0, 3));
  const auto binds = Of(commands, Kind::kBindSlots);
  REQUIRE(binds.size() == 2);
  CHECK(binds[0].index == 24);  // a: its own extent, then a cold one
  CHECK(binds[1].index == 16);  // b, the last: a shared one and its own
  CHECK(table.FreeCounts().slots == 8);
}

}  // namespace
}  // namespace spin
