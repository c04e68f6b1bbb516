// Mirror, reference counts and commands change together.
#include "memory/row_table.h"

#include <catch2/catch.hpp>

#include <vector>

namespace spin {
namespace {

using Kind = TableCommandKind;

MemoryPlan Plan() {
  const KvGeometry g = {.num_layers = 2,
                        .num_kv_heads = 1,
                        .num_q_heads = 1,
                        .head_dim = 64,
                        .page_tokens = 64,
                        .max_rows = 3,
                        .max_extents = 4};
  return PlanMemory(g, HbmBytes(g, 12, 6), 6 * g.extent_bytes()).value();
}

std::vector<TableCommand> Take(RowTable& table) {
  const auto taken = table.TakeCommands();
  return {taken.begin(), taken.end()};
}

TEST_CASE("rows open lowest first and close to be opened again") {
  RowTable table(Plan());
  CHECK(table.OpenRow() == 0);
  CHECK(table.OpenRow() == 1);
  table.SetPlacement(0, Placement::kResident);
  table.CloseRow(0);
  CHECK(table.num_free_rows() == 2);
  CHECK(table.OpenRow() == 0);
}

TEST_CASE("a granted extent is mapped, counted and announced") {
  RowTable table(Plan());
  const int32_t r = table.OpenRow();
  table.Grant(PoolKind::kSlot, r, 1);
  table.Grant(PoolKind::kSlot, r, 1);
  CHECK(table.num_mapped(PoolKind::kSlot, r, 1) == 2);
  CHECK(table.extent(PoolKind::kSlot, r, 1, 1) == 1);
  CHECK(table.FreeCounts().slots == 10);
  const auto commands = Take(table);
  REQUIRE(commands.size() == 2);
  CHECK(commands[1].kind == Kind::kSetSlotExtent);
  CHECK(commands[1].layer == 1);
  CHECK(commands[1].index == 1);
  CHECK(commands[1].value == 1);
}

TEST_CASE("a shared slot extent is announced without clearing it, and freed by its last holder") {
  RowTable table(Plan());
  const int32_t a = table.OpenRow(), b = table.OpenRow();
  table.Grant(PoolKind::kSlot, a, 0);
  table.Share(PoolKind::kSlot, b, 0, a);
  CHECK(table.IsShared(PoolKind::kSlot, b, 0, 0));
  CHECK(Take(table).back().kind == Kind::kShareSlotExtent);
  table.Unmap(PoolKind::kSlot, a, 0, 0);
  CHECK(table.FreeCounts().slots == 11);
  table.Unmap(PoolKind::kSlot, b, 0, 0);
  CHECK(table.FreeCounts().slots == 12);
  CHECK(Take(table).back().value == kAbsent);
}

TEST_CASE("kept slots move to the front in order, the others are unmapped") {
  RowTable table(Plan());
  const int32_t r = table.OpenRow();
  for (int i = 0; i < 4; ++i) table.Grant(PoolKind::kSlot, r, 0);
  Take(table);
  table.KeepSlots(r, 0, 1, 2);
  CHECK(table.num_mapped(PoolKind::kSlot, r, 0) == 2);
  const auto commands = Take(table);
  REQUIRE(commands.size() == 4);
  const int32_t want[] = {1, 2, kAbsent, kAbsent};
  for (int32_t i = 0; i < 4; ++i) {
    CHECK(commands[static_cast<size_t>(i)].kind == Kind::kSetSlotExtent);
    CHECK(commands[static_cast<size_t>(i)].index == i);
    CHECK(commands[static_cast<size_t>(i)].value == want[i]);
    CHECK(table.extent(PoolKind::kSlot, r, 0, i) == want[i]);
  }
  CHECK(table.FreeCounts().slots == 10);
}

TEST_CASE("a closing row loses its placement first and unmaps everything") {
  RowTable table(Plan());
  const int32_t r = table.OpenRow();
  table.SetPlacement(r, Placement::kTiered);
  for (const PoolKind kind : {PoolKind::kSlot, PoolKind::kHost, PoolKind::kMeta}) {
    table.Grant(kind, r, 0);
  }
  table.SetNumSlots(r, 0, 5);
  Take(table);
  table.CloseRow(r);
  const auto commands = Take(table);
  REQUIRE(commands.size() == 5);
  CHECK(commands[0].kind == Kind::kSetPlacement);
  CHECK(commands[1].kind == Kind::kSetNumSlots);
  for (size_t i = 2; i < 5; ++i) CHECK(commands[i].value == kAbsent);
  CHECK(table.FreeCounts() == RowTable(Plan()).FreeCounts());
}

TEST_CASE("a group ends with its last member") {
  RowTable table(Plan());
  const std::vector<RowId> rows = {RowId{table.OpenRow()}, RowId{table.OpenRow()}};
  table.FormGroup(rows, 1);
  const int32_t group = table.row(0).group;
  CHECK(table.group(group).members == 2);
  for (const RowId row : rows) {
    table.SetPlacement(row.value, Placement::kResident);
    table.CloseRow(row.value);
  }
  CHECK(table.group(group).members == 0);
}

}  // namespace
}  // namespace spin
