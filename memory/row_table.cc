#include "memory/row_table.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace spin {
namespace {

constexpr size_t kCommandsReserved = 1 << 14;

constexpr std::array<PoolKind, kNumPoolKinds> kAllPools = {PoolKind::kSlot, PoolKind::kHost,
                                                           PoolKind::kSummary, PoolKind::kMeta};

TableCommandKind SetCommand(PoolKind kind) {
  switch (kind) {
    case PoolKind::kSlot:
      return TableCommandKind::kSetSlotExtent;
    case PoolKind::kHost:
      return TableCommandKind::kSetHostExtent;
    case PoolKind::kSummary:
      return TableCommandKind::kSetSummaryExtent;
    case PoolKind::kMeta:
      return TableCommandKind::kSetMetaSegment;
  }
  SPIN_CHECK(false);
  return TableCommandKind::kSetSlotExtent;
}

}  // namespace

RowTable::RowTable(const MemoryPlan& plan)
    : geometry_(plan.geometry),
      pools_{ExtentPool(plan.num_slot_extents), ExtentPool(plan.num_host_extents),
             ExtentPool(plan.num_summary_extents), ExtentPool(plan.num_meta_segments)} {
  SPIN_CHECK(geometry_.max_rows > 0 && geometry_.num_layers > 0 && geometry_.max_extents > 0);
  const size_t places = static_cast<size_t>(geometry_.max_rows) * geometry_.num_layers;
  rows_.resize(static_cast<size_t>(geometry_.max_rows));
  groups_.resize(rows_.size());
  num_free_rows_ = geometry_.max_rows;
  for (auto& directory : directories_) directory.assign(places * geometry_.max_extents, kAbsent);
  for (auto& mapped : mapped_) mapped.assign(places, 0);
  num_slots_.assign(places, 0);
  slot_extents_.assign(rows_.size(), 0);
  commands_.reserve(kCommandsReserved);
  taken_.reserve(kCommandsReserved);
}

Row& RowTable::row(int32_t row) {
  SPIN_CHECK(row >= 0 && row < num_rows());
  return rows_[static_cast<size_t>(row)];
}

const Row& RowTable::row(int32_t row) const {
  SPIN_CHECK(row >= 0 && row < num_rows());
  return rows_[static_cast<size_t>(row)];
}

const ForkGroup& RowTable::group(int32_t group) const {
  SPIN_CHECK(group >= 0 && group < num_rows());
  return groups_[static_cast<size_t>(group)];
}

PoolCounts RowTable::FreeCounts() const {
  return {.slots = pool(PoolKind::kSlot).num_free(),
          .host = pool(PoolKind::kHost).num_free(),
          .summaries = pool(PoolKind::kSummary).num_free(),
          .meta = pool(PoolKind::kMeta).num_free()};
}

int32_t RowTable::OpenRow() {
  SPIN_CHECK_GT(num_free_rows_, 0);
  const auto found = std::find_if(rows_.begin(), rows_.end(),
                                  [](const Row& row) { return row.state == RowState::kFree; });
  SPIN_CHECK(found != rows_.end());
  *found = {};
  found->state = RowState::kPrefill;
  --num_free_rows_;
  return static_cast<int32_t>(found - rows_.begin());
}

void RowTable::FormGroup(std::span<const RowId> rows, int32_t shared_extents) {
  SPIN_CHECK(rows.size() > 1 && shared_extents > 0);
  const auto found = std::find_if(groups_.begin(), groups_.end(),
                                  [](const ForkGroup& group) { return group.members == 0; });
  SPIN_CHECK(found != groups_.end());  // as many groups as rows
  *found = {.members = static_cast<int32_t>(rows.size()), .shared_extents = shared_extents};
  for (const RowId id : rows) {
    SPIN_CHECK_EQ(row(id.value).group, kNoGroup);
    row(id.value).group = static_cast<int32_t>(found - groups_.begin());
  }
}

void RowTable::CloseRow(int32_t r) {
  Row& closed = row(r);
  SPIN_CHECK(closed.state != RowState::kFree);
  SetPlacement(r, Placement::kNone);  // first: from here on the device looks at nothing of the row
  for (int32_t layer = 0; layer < geometry_.num_layers; ++layer) {
    SetNumSlots(r, layer, 0);
    for (const PoolKind kind : kAllPools) Unmap(kind, r, layer, 0);
  }
  if (closed.group != kNoGroup) {
    ForkGroup& group = groups_[static_cast<size_t>(closed.group)];
    SPIN_CHECK_GT(group.members, 0);
    if (--group.members == 0) group = {};
  }
  closed = {};
  ++num_free_rows_;
  DropUnneededSpills();
}

int32_t RowTable::extent(PoolKind kind, int32_t row, int32_t layer, int32_t i) const {
  return directories_[static_cast<size_t>(kind)][Entry(row, layer, i)];
}

int32_t RowTable::num_mapped(PoolKind kind, int32_t row, int32_t layer) const {
  return mapped_[static_cast<size_t>(kind)][Place(row, layer)];
}

int32_t RowTable::num_slots(int32_t row, int32_t layer) const {
  return num_slots_[Place(row, layer)];
}

int32_t RowTable::slot_extents(int32_t row) const {
  SPIN_CHECK(row >= 0 && row < num_rows());
  return slot_extents_[static_cast<size_t>(row)];
}

void RowTable::CountMapped(PoolKind kind, int32_t row, int32_t layer, int32_t change) {
  mapped_[static_cast<size_t>(kind)][Place(row, layer)] += change;
  if (kind == PoolKind::kSlot) slot_extents_[static_cast<size_t>(row)] += change;
}

bool RowTable::IsShared(PoolKind kind, int32_t row, int32_t layer, int32_t i) const {
  return pool(kind).references(ExtentId{extent(kind, row, layer, i)}) > 1;
}

void RowTable::Grant(PoolKind kind, int32_t row, int32_t layer) {
  const std::optional<ExtentId> granted = mutable_pool(kind).Allocate();
  SPIN_CHECK(granted.has_value());  // policy counted before
  const int32_t mapped = num_mapped(kind, row, layer);
  int32_t& entry = directories_[static_cast<size_t>(kind)][Entry(row, layer, mapped)];
  SPIN_CHECK_EQ(entry, kAbsent);
  entry = granted->value;
  CountMapped(kind, row, layer, 1);
  Emit(SetCommand(kind), row, layer, mapped, entry);
}

void RowTable::Share(PoolKind kind, int32_t row, int32_t layer, int32_t from_row) {
  SPIN_CHECK(kind != PoolKind::kMeta && row != from_row);
  const int32_t mapped = num_mapped(kind, row, layer);
  int32_t& entry = directories_[static_cast<size_t>(kind)][Entry(row, layer, mapped)];
  SPIN_CHECK_EQ(entry, kAbsent);
  entry = extent(kind, from_row, layer, mapped);
  mutable_pool(kind).Share(ExtentId{entry});
  CountMapped(kind, row, layer, 1);
  Emit(kind == PoolKind::kSlot ? TableCommandKind::kShareSlotExtent : SetCommand(kind), row, layer,
       mapped, entry);
}

void RowTable::Unmap(PoolKind kind, int32_t row, int32_t layer, int32_t first) {
  SPIN_CHECK_GE(first, 0);
  for (int32_t i = num_mapped(kind, row, layer) - 1; i >= first; --i) {
    int32_t& entry = directories_[static_cast<size_t>(kind)][Entry(row, layer, i)];
    mutable_pool(kind).Release(ExtentId{entry});
    entry = kAbsent;
    CountMapped(kind, row, layer, -1);
    Emit(SetCommand(kind), row, layer, i, kAbsent);
  }
}

void RowTable::KeepSlots(int32_t row, int32_t layer, int32_t begin, int32_t count) {
  const int32_t mapped = num_mapped(PoolKind::kSlot, row, layer);
  SPIN_CHECK(begin >= 0 && count >= 0 && begin + count <= mapped);
  auto& directory = directories_[static_cast<size_t>(PoolKind::kSlot)];
  for (int32_t i = 0; i < mapped; ++i) {
    if (i >= begin && i < begin + count) {
      SPIN_CHECK(!IsShared(PoolKind::kSlot, row, layer, i));  // owners and ages become this row's
      continue;
    }
    int32_t& entry = directory[Entry(row, layer, i)];
    mutable_pool(PoolKind::kSlot).Release(ExtentId{entry});
    entry = kAbsent;
  }
  for (int32_t i = 0; i < mapped; ++i) {
    int32_t moved = kAbsent;
    if (i < count) std::swap(moved, directory[Entry(row, layer, begin + i)]);
    directory[Entry(row, layer, i)] = moved;
    Emit(TableCommandKind::kSetSlotExtent, row, layer, i, moved);
  }
  CountMapped(PoolKind::kSlot, row, layer, count - mapped);
}

void RowTable::ClearMeta(int32_t row, int32_t layer) {
  for (int32_t i = 0; i < num_mapped(PoolKind::kMeta, row, layer); ++i) {
    Emit(TableCommandKind::kSetMetaSegment, row, layer, i, extent(PoolKind::kMeta, row, layer, i));
  }
}

void RowTable::SetNumSlots(int32_t row, int32_t layer, int32_t num_slots) {
  SPIN_CHECK_GE(num_slots, 0);
  int32_t& current = num_slots_[Place(row, layer)];
  if (current == num_slots) return;
  current = num_slots;
  Emit(TableCommandKind::kSetNumSlots, row, layer, 0, num_slots);
}

void RowTable::SetPlacement(int32_t r, Placement placement) {
  SPIN_CHECK(row(r).placement != placement);
  row(r).placement = placement;
  Emit(TableCommandKind::kSetPlacement, r, 0, 0, static_cast<int32_t>(placement));
}

void RowTable::Emit(TableCommandKind kind, int32_t row, int32_t layer, int32_t index,
                    int32_t value) {
  SPIN_CHECK(row >= 0 && row < num_rows() && layer >= 0 && layer < geometry_.num_layers);
  SPIN_CHECK(index >= 0 && value >= kAbsent);
  if (kind == TableCommandKind::kSpillExtent) ++spilled_extents_;
  commands_.push_back({.kind = kind, .row = row, .layer = layer, .index = index, .value = value});
}

std::span<const TableCommand> RowTable::TakeCommands() {
  taken_.clear();
  std::swap(commands_, taken_);
  return taken_;
}

// ---- Copies in the background ------------------------------------------------------------------

void RowTable::QueueSpill(int32_t r, int32_t layer, int32_t i) {
  const Spill spill = {.demotion = row(r).demotion,
                       .slot = ExtentId{extent(PoolKind::kSlot, r, layer, i)},
                       .host = ExtentId{extent(PoolKind::kHost, r, layer, i)}};
  SPIN_CHECK(spill.demotion > 0 && (spills_.empty() || spills_.back().demotion <= spill.demotion));
  mutable_pool(PoolKind::kSlot).Share(spill.slot);
  mutable_pool(PoolKind::kHost).Share(spill.host);
  spills_.push_back(spill);
}

std::span<const TableCommand> RowTable::TakeSpills(int32_t max) {
  SPIN_CHECK(commands_.empty());
  if (num_taken_spills_ > 0) return {};
  num_taken_spills_ = std::min(spills_.size(), static_cast<size_t>(max));
  spilled_extents_ += static_cast<int64_t>(num_taken_spills_);
  taken_spills_.clear();
  for (size_t i = 0; i < num_taken_spills_; ++i) {
    taken_spills_.push_back({.kind = TableCommandKind::kSpillExtent,
                             .index = spills_[i].host.value,
                             .value = spills_[i].slot.value});
  }
  return taken_spills_;
}

void RowTable::FinishSpills() {
  const auto end = spills_.begin() + static_cast<std::ptrdiff_t>(num_taken_spills_);
  std::for_each(spills_.begin(), end, [this](const Spill& spill) { DropSpill(spill); });
  spills_.erase(spills_.begin(), end);
  num_taken_spills_ = 0;
}

int64_t RowTable::OldestSpill() const {
  return spills_.empty() ? std::numeric_limits<int64_t>::max() : spills_.front().demotion;
}

int64_t RowTable::SlotsOfSpills() const {
  return std::count_if(spills_.begin(), spills_.end(), [this](const Spill& spill) {
    return pool(PoolKind::kSlot).references(spill.slot) == 1;
  });
}

void RowTable::DropSpill(const Spill& spill) {
  mutable_pool(PoolKind::kSlot).Release(spill.slot);
  mutable_pool(PoolKind::kHost).Release(spill.host);
}

// Rows map host extents as long as they want them filled.
void RowTable::DropUnneededSpills() {
  const auto queued = spills_.begin() + static_cast<std::ptrdiff_t>(num_taken_spills_);
  const auto kept = std::remove_if(queued, spills_.end(), [this](const Spill& spill) {
    const bool unneeded = pool(PoolKind::kHost).references(spill.host) == 1;
    if (unneeded) DropSpill(spill);
    return unneeded;
  });
  spills_.erase(kept, spills_.end());
}

size_t RowTable::Entry(int32_t row, int32_t layer, int32_t i) const {
  SPIN_CHECK(i >= 0 && i < geometry_.max_extents);
  return Place(row, layer) * static_cast<size_t>(geometry_.max_extents) + static_cast<size_t>(i);
}

size_t RowTable::Place(int32_t row, int32_t layer) const {
  SPIN_CHECK(row >= 0 && row < num_rows() && layer >= 0 && layer < geometry_.num_layers);
  return static_cast<size_t>(row) * static_cast<size_t>(geometry_.num_layers) +
         static_cast<size_t>(layer);
}

}  // namespace spin
