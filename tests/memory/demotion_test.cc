// What a demotion keeps, shares and spills. Contents are checked in tests/sim/memory_sim_test.cc.
#include "memory/demotion.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

namespace spin {
namespace {

using Kind = TableCommandKind;
constexpr LayerDemand kSparse = {.whole_context = false, .fixed_pages = 2, .selectable_pages = 10};

MemoryPlan Plan(int32_t unsettled_tokens = 0) {  // one layer, 8 pages an extent
  const KvGeometry g = {.num_layers = 1,
                        .num_kv_heads = 1,
                        .num_q_heads = 1,
                        .head_dim = 64,
                        .page_tokens = 64,
                        .max_rows = 3,
                        .max_extents = 8,
                        .unsettled_tokens = unsettled_tokens};
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

// Both phases at once: the copies pass, nothing happens between.
std::vector<TableCommand> Demote(RowTable& table, const Footprint& footprint,
                                 std::span<const int32_t> rows) {
  BeginDemotion(table, footprint, rows, 1);
  table.TakeCommands();
  const auto taken = table.TakeSpills(1000);
  std::vector<TableCommand> spills(taken.begin(), taken.end());
  if (!spills.empty()) table.CheckInvariants(footprint);
  table.FinishSpills();
  FinishDemotion(table, footprint, rows);
  table.CheckInvariants(footprint);
  return spills;
}

TEST_CASE("a row keeps its last extents with tokens as cache and spills all of them") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0, 0);  // 12 slots: 2 extents
  const int32_t r = Open(table, 5, 4 * kExtentTokens - 10, 0, kAbsent);
  table.TakeCommands();
  CHECK(Demote(table, footprint, {&r, 1}).size() == 3);
  const auto commands = table.TakeCommands();
  CHECK(Of(commands, Kind::kSpillExtent).size() == 1);  // the tail
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
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0, 0);
  const int32_t r = Open(table, 4, 100, 0, kAbsent);
  CHECK(Demote(table, footprint, {&r, 1}).empty());
  CHECK(table.num_mapped(PoolKind::kSlot, r, 0) == 2);
  CHECK(table.extent(PoolKind::kSlot, r, 0, 0) == 0);
  CHECK(table.num_mapped(PoolKind::kHost, r, 0) == 4);
}

TEST_CASE("rows of one prompt share its host extents; only the last holder keeps shared slots") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0, 0);
  const int64_t length = 3 * kExtentTokens + 1;
  const int32_t a = Open(table, 4, length, 3, kAbsent);
  const int32_t b = Open(table, 4, length, 3, a);
  const RowId ids[] = {RowId{a}, RowId{b}};
  table.FormGroup(ids, 3);
  table.CheckInvariants(footprint);
  table.TakeCommands();
  const int32_t rows[] = {a, b};
  CHECK(Demote(table, footprint, rows).size() == 3);  // the prompt, once
  const auto commands = table.TakeCommands();
  CHECK(Of(commands, Kind::kSpillExtent).size() == 2);  // a's end and b's
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

TEST_CASE("what is full too late for the copies goes with the tail") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0, 0);
  const int32_t r = Open(table, 5, 2 * kExtentTokens - 1, 0, kAbsent);
  BeginDemotion(table, footprint, {&r, 1}, 1);
  table.TakeCommands();
  CHECK(table.TakeSpills(8).size() == 1);
  table.row(r).length = 3 * kExtentTokens + 1;
  table.FinishSpills();
  FinishDemotion(table, footprint, {&r, 1});
  const auto spilled = Of(table.TakeCommands(), Kind::kSpillExtent);
  REQUIRE(spilled.size() == 3);
  CHECK(spilled.front().value == 1);
  CHECK(spilled.back().value == 3);
}

TEST_CASE("what may still change is not copied in the background but with the tail") {
  RowTable table(Plan(64));
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0, 0);
  const int64_t length = GENERATE(2 * kExtentTokens, 2 * kExtentTokens + 63);
  const int32_t r = Open(table, 5, length, 0, kAbsent);
  BeginDemotion(table, footprint, {&r, 1}, 1);
  table.CheckInvariants(footprint);
  table.TakeCommands();
  const auto taken = table.TakeSpills(8);
  REQUIRE(taken.size() == 1);
  CHECK(taken[0].value == 0);
  table.row(r).length = 2 * kExtentTokens + 64;  // the second settles too late
  table.FinishSpills();
  FinishDemotion(table, footprint, {&r, 1});
  const auto spilled = Of(table.TakeCommands(), Kind::kSpillExtent);
  REQUIRE(spilled.size() == 2);
  CHECK(spilled[0].value == 1);
  CHECK(spilled[1].value == 2);
}

TEST_CASE(
    "a copy under way keeps its extents from being granted again; one that waits is dropped") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0, 0);
  const int32_t r = Open(table, 5, 4 * kExtentTokens, 0, kAbsent);
  const PoolCounts before = table.FreeCounts();
  BeginDemotion(table, footprint, {&r, 1}, 1);
  table.TakeCommands();
  REQUIRE(table.TakeSpills(3).size() == 3);
  CHECK(table.TakeSpills(3).empty());  // one piece at a time
  table.CloseRow(r);
  table.CheckInvariants(footprint);
  CHECK(table.FreeCounts().slots == before.slots + 5 - 3);
  CHECK(table.FreeCounts().host == before.host - 3);
  CHECK(table.SlotsOfSpills() == 3);
  table.FinishSpills();
  table.CheckInvariants(footprint);
  CHECK_FALSE(table.HasSpills());  // the fourth went with its row
  CHECK(table.FreeCounts().slots == before.slots + 5);
  CHECK(table.FreeCounts().host == before.host);
}

TEST_CASE("a prompt's copies go on for the rows that are left") {
  RowTable table(Plan());
  const Footprint footprint(table.geometry(), {&kSparse, 1}, 0, 0);
  const int64_t length = 3 * kExtentTokens + 1;
  const int32_t a = Open(table, 4, length, 3, kAbsent);
  const int32_t b = Open(table, 4, length, 3, a);
  const RowId ids[] = {RowId{a}, RowId{b}};
  table.FormGroup(ids, 3);
  const int32_t rows[] = {a, b};
  BeginDemotion(table, footprint, rows, 1);
  table.TakeCommands();
  table.TakeSpills(1);
  table.CloseRow(a);
  table.CheckInvariants(footprint);
  table.FinishSpills();
  table.TakeCommands();
  CHECK(table.TakeSpills(8).size() == 2);
  table.FinishSpills();
  FinishDemotion(table, footprint, {&b, 1});
  table.CheckInvariants(footprint);
  CHECK(table.num_mapped(PoolKind::kHost, b, 0) == 4);
}

}  // namespace
}  // namespace spin
