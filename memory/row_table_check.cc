// RowTable::CheckInvariants: pools against directories, rows against reservations, sharing against
// groups.
#include <algorithm>

#include "common/check.h"
#include "memory/row_table.h"

namespace spin {

void RowTable::CheckInvariants(const Footprint& footprint) const {
  CheckPools();
  CheckSharing();
  int32_t free_rows = 0;
  std::vector<int32_t> members(groups_.size());
  for (int32_t r = 0; r < num_rows(); ++r) {
    CheckRow(r, footprint);
    if (row(r).state == RowState::kFree) ++free_rows;
    if (row(r).group != kNoGroup) ++members[static_cast<size_t>(row(r).group)];
  }
  SPIN_CHECK_EQ(free_rows, num_free_rows_);
  for (size_t g = 0; g < groups_.size(); ++g) {
    SPIN_CHECK_EQ(members[g], groups_[g].members);
    SPIN_CHECK_EQ(groups_[g].members > 0, groups_[g].shared_extents > 0);
  }
}

// Every reference is a directory entry or a copy in the background, and each of these a reference.
void RowTable::CheckPools() const {
  for (int32_t k = 0; k < kNumPoolKinds; ++k) {
    const ExtentPool& pool = pools_[static_cast<size_t>(k)];
    pool.CheckInvariants();
    SPIN_CHECK_EQ(pool.num_free() + pool.num_used(), pool.total());
    std::vector<int32_t> references(static_cast<size_t>(pool.total()));
    for (const int32_t extent : directories_[static_cast<size_t>(k)]) {
      SPIN_CHECK(extent >= kAbsent && extent < pool.total());
      if (extent != kAbsent) ++references[static_cast<size_t>(extent)];
    }
    for (const Spill& spill : spills_) {
      if (k == static_cast<int32_t>(PoolKind::kSlot))
        ++references[static_cast<size_t>(spill.slot.value)];
      if (k == static_cast<int32_t>(PoolKind::kHost))
        ++references[static_cast<size_t>(spill.host.value)];
    }
    for (int32_t extent = 0; extent < pool.total(); ++extent) {
      SPIN_CHECK_EQ(references[static_cast<size_t>(extent)], pool.references(ExtentId{extent}));
    }
  }
}

// What a row holds is what its state, placement and reservation say.
void RowTable::CheckRow(int32_t r, const Footprint& footprint) const {
  const Row& row = this->row(r);
  const bool free = row.state == RowState::kFree;
  const bool resident = row.placement == Placement::kResident;
  const bool suspended = row.state == RowState::kSuspended;
  const bool prefilled = row.state == RowState::kReady || suspended;
  SPIN_CHECK_EQ(free, row.placement == Placement::kNone);
  SPIN_CHECK(!suspended || row.placement == Placement::kTiered);
  SPIN_CHECK(row.length <= row.reserved_tokens && row.prompt_tokens <= row.reserved_tokens);
  SPIN_CHECK(prefilled ? row.length >= row.prompt_tokens : row.length == 0);
  SPIN_CHECK(!free || row.group == kNoGroup);
  const int32_t extents = footprint.Extents(row.reserved_tokens);
  const bool leaving = row.demotion != 0;  // and its copies have not all passed
  SPIN_CHECK(!leaving || (row.state == RowState::kReady && resident));
  SPIN_CHECK(!leaving || row.demotion >= OldestSpill());
  SPIN_CHECK(row.spilled_extents <= (leaving ? geometry_.SettledExtents(row.length) : 0));
  const int32_t on_host = resident && !leaving ? 0 : extents;
  int32_t all_slot_extents = 0;
  for (int32_t layer = 0; layer < geometry_.num_layers; ++layer) {
    const int32_t slot_extents = num_mapped(PoolKind::kSlot, r, layer);
    int32_t least = resident ? extents : 0, most = least, slots = 0;
    if (!resident && !free && !suspended) {
      least = most = footprint.TieredSlotExtents(layer, row.reserved_tokens, row.budget_pages);
      if (prefilled) most = footprint.MostSlotExtents(layer, row.reserved_tokens, row.budget_pages);
      slots = footprint.NumSlots(layer, row.reserved_tokens, slot_extents, row.budget_pages);
    }
    SPIN_CHECK(slot_extents >= least && slot_extents <= most);
    all_slot_extents += slot_extents;
    SPIN_CHECK_EQ(num_mapped(PoolKind::kHost, r, layer), on_host);
    SPIN_CHECK_EQ(num_mapped(PoolKind::kMeta, r, layer), on_host);
    SPIN_CHECK_EQ(num_mapped(PoolKind::kSummary, r, layer), has_summaries() ? extents : 0);
    SPIN_CHECK_EQ(num_slots(r, layer), slots);
    SPIN_CHECK_LE(slots, slot_extents * geometry_.extent_pages());
    for (int32_t k = 0; k < kNumPoolKinds; ++k) {
      const auto kind = static_cast<PoolKind>(k);
      for (int32_t i = 0; i < geometry_.max_extents; ++i) {
        SPIN_CHECK_EQ(extent(kind, r, layer, i) != kAbsent, i < num_mapped(kind, r, layer));
      }
    }
  }
  SPIN_CHECK_EQ(slot_extents(r), all_slot_extents);
}

// Only settled extents of a group's prompt are shared, at the same place of the same layer, and never
// cache slots or meta segments.
void RowTable::CheckSharing() const {
  for (int32_t k = 0; k < kNumPoolKinds; ++k) {
    const auto kind = static_cast<PoolKind>(k);
    struct Holder {
      int32_t row = kAbsent, layer = 0, i = 0;
    };
    std::vector<Holder> first(static_cast<size_t>(pool(kind).total()));
    for (int32_t r = 0; r < num_rows(); ++r) {
      for (int32_t layer = 0; layer < geometry_.num_layers; ++layer) {
        for (int32_t i = 0; i < num_mapped(kind, r, layer); ++i) {
          Holder& holder = first[static_cast<size_t>(extent(kind, r, layer, i))];
          if (holder.row == kAbsent) {
            holder = {r, layer, i};
            continue;
          }
          const int32_t group = row(r).group;
          SPIN_CHECK(group != kNoGroup && group == row(holder.row).group);
          SPIN_CHECK(i < this->group(group).shared_extents && i == holder.i &&
                     layer == holder.layer);
          SPIN_CHECK(i < geometry_.SettledExtents(row(r).prompt_tokens));
          SPIN_CHECK(kind != PoolKind::kMeta);
          SPIN_CHECK(kind != PoolKind::kSlot || row(r).placement == Placement::kResident);
          SPIN_CHECK(row(r).placement == row(holder.row).placement);
          SPIN_CHECK_EQ(row(r).demotion, row(holder.row).demotion);
        }
      }
    }
  }
}

}  // namespace spin
