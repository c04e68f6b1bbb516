#include "memory/demotion.h"

#include <algorithm>

#include "common/check.h"

namespace spin {
namespace {

// Host extents and meta segments for the whole reservation; settled extents enter the queue. The
// prompt that a group shares goes to the host once, with the group's first row.
void ReserveHost(RowTable& table, const Footprint& footprint, int32_t r, int32_t first_row) {
  Row& row = table.row(r);
  row.spilled_extents = static_cast<int32_t>(table.geometry().SettledExtents(row.length));
  const int32_t extents = footprint.Extents(row.reserved_tokens);
  SPIN_CHECK(r == first_row || (row.group != kNoGroup && row.group == table.row(first_row).group));
  const int32_t shared = r == first_row ? 0 : table.group(row.group).shared_extents;
  for (int32_t layer = 0; layer < table.geometry().num_layers; ++layer) {
    SPIN_CHECK_EQ(table.num_mapped(PoolKind::kHost, r, layer), 0);
    SPIN_CHECK_EQ(table.num_mapped(PoolKind::kMeta, r, layer), 0);
    for (int32_t i = 0; i < extents; ++i) {
      table.Grant(PoolKind::kMeta, r, layer);
      if (i < shared) {
        table.Share(PoolKind::kHost, r, layer, first_row);
        continue;
      }
      table.Grant(PoolKind::kHost, r, layer);
      if (i < row.spilled_extents) table.QueueSpill(r, layer, i);
    }
  }
}

// What holds tokens and was not copied in the background: the tail, and what was settled too late.
void SpillRest(RowTable& table, const Footprint& footprint, int32_t r) {
  const Row& row = table.row(r);
  const int32_t holding = footprint.Extents(row.length);
  for (int32_t layer = 0; layer < table.geometry().num_layers; ++layer) {
    for (int32_t i = row.spilled_extents; i < holding; ++i) {
      table.Emit(TableCommandKind::kSpillExtent, r, layer,
                 table.extent(PoolKind::kHost, r, layer, i),
                 table.extent(PoolKind::kSlot, r, layer, i));
    }
  }
}

// Makes the row Tiered. Of every layer the last extents that hold tokens and are the row's own stay
// as its cache, as many as it is to get; the others go back to the pool.
void KeepCache(RowTable& table, const Footprint& footprint, int32_t r) {
  Row& row = table.row(r);
  row.demotion = 0;
  row.spilled_extents = 0;
  const int32_t reserved = footprint.Extents(row.reserved_tokens);
  const int32_t holding = footprint.Extents(row.length);
  const int32_t pages = footprint.Pages(row.length);
  table.SetPlacement(r, Placement::kTiered);
  for (int32_t layer = 0; layer < table.geometry().num_layers; ++layer) {
    SPIN_CHECK_EQ(table.num_mapped(PoolKind::kSlot, r, layer), reserved);
    const int32_t wanted =
        footprint.TieredSlotExtents(layer, row.reserved_tokens, row.budget_pages);
    int32_t own = 0;  // first extent that no other row refers to
    while (own < reserved && table.IsShared(PoolKind::kSlot, r, layer, own)) ++own;
    const int32_t begin = std::max(holding - wanted, own);
    const int32_t kept = std::min(wanted, reserved - begin);
    table.KeepSlots(r, layer, begin, kept);
    table.SetNumSlots(r, layer,
                      footprint.NumSlots(layer, row.reserved_tokens, wanted, row.budget_pages));
    const int32_t first_page = begin * table.geometry().extent_pages();
    if (first_page >= pages) continue;  // what is kept is empty
    // Cold extents follow behind the kept ones; none of them is bound, because the kept reach to
    // the last token.
    SPIN_CHECK_GE(begin + kept, holding);
    table.Emit(TableCommandKind::kBindSlots, r, layer, first_page, pages);
  }
}

}  // namespace

void BeginDemotion(RowTable& table, const Footprint& footprint, std::span<const int32_t> rows,
                   int64_t number) {
  SPIN_CHECK(!rows.empty());
  for (const int32_t r : rows) {
    Row& row = table.row(r);
    SPIN_CHECK(row.state == RowState::kReady && row.placement == Placement::kResident);
    SPIN_CHECK(row.length > 0 && row.demotion == 0);
    row.demotion = number;
    ReserveHost(table, footprint, r, rows.front());
  }
}

void FinishDemotion(RowTable& table, const Footprint& footprint, std::span<const int32_t> rows) {
  // All reads of the old contents come before any extent is granted again: the device applies
  // commands in order.
  for (const int32_t r : rows) {
    SPIN_CHECK(table.row(r).demotion > 0 && table.row(r).demotion < table.OldestSpill());
    SpillRest(table, footprint, r);
  }
  for (const int32_t r : rows) KeepCache(table, footprint, r);
  for (const int32_t r : rows) {
    const Row& row = table.row(r);
    for (int32_t layer = 0; layer < table.geometry().num_layers; ++layer) {
      const int32_t wanted =
          footprint.TieredSlotExtents(layer, row.reserved_tokens, row.budget_pages);
      while (table.num_mapped(PoolKind::kSlot, r, layer) < wanted) {
        table.Grant(PoolKind::kSlot, r, layer);
      }
    }
  }
}

}  // namespace spin
