#include "memory/slot_buffers.h"

#include <algorithm>

#include "common/check.h"

namespace spin {

SlotBuffers::SlotBuffers(const Footprint* footprint, RowTable* table)
    : footprint_(*footprint), table_(*table) {
  const auto rows = static_cast<size_t>(table_.num_rows());
  const auto layers = static_cast<size_t>(table_.geometry().num_layers);
  bounds_.resize(rows);
  rows_.reserve(rows);
  row_holders_.reserve(rows);
  layer_holders_.resize(layers);
  heap_.reserve(std::max(rows, layers));
}

const SlotBuffers::Bounds& SlotBuffers::BoundsOf(int32_t r) {
  Bounds& bounds = bounds_[static_cast<size_t>(r)];
  const int64_t tokens = table_.row(r).reserved_tokens;
  const int32_t budget = table_.row(r).budget_pages;
  if (bounds.tokens == tokens && bounds.budget_pages == budget) return bounds;
  bounds = {.tokens = tokens, .budget_pages = budget, .least = 0, .most = 0};
  for (int32_t layer = 0; layer < table_.geometry().num_layers; ++layer) {
    bounds.least += footprint_.TieredSlotExtents(layer, tokens, budget);
    bounds.most += footprint_.MostSlotExtents(layer, tokens, budget);
  }
  return bounds;
}

void SlotBuffers::CollectRows(int32_t growing) {
  rows_.clear();
  row_holders_.clear();
  for (int32_t r = 0; r < table_.num_rows(); ++r) {
    const Row& row = table_.row(r);
    if (row.state != RowState::kReady || row.placement != Placement::kTiered) continue;
    const Bounds& bounds = BoundsOf(r);
    const int64_t held = r == growing ? CollectLayers(r) : table_.slot_extents(r) - bounds.least;
    rows_.push_back(r);
    row_holders_.push_back(
        {.weight = row.length, .held = held, .most = bounds.most - bounds.least});
  }
}

int64_t SlotBuffers::CollectLayers(int32_t r) {
  const int64_t tokens = table_.row(r).reserved_tokens;
  const int32_t budget = table_.row(r).budget_pages;
  int64_t held = 0;
  for (int32_t layer = 0; layer < table_.geometry().num_layers; ++layer) {
    const int32_t least = footprint_.TieredSlotExtents(layer, tokens, budget);
    BufferHolder& holder = layer_holders_[static_cast<size_t>(layer)];
    holder = {.held = std::max(table_.num_mapped(PoolKind::kSlot, r, layer) - least, 0),
              .most = footprint_.MostSlotExtents(layer, tokens, budget) - least};
    held += holder.held;
  }
  return held;
}

int64_t SlotBuffers::extents() {
  CollectRows();
  int64_t sum = 0;
  for (const BufferHolder& holder : row_holders_) sum += holder.held;
  return sum;
}

int64_t SlotBuffers::lacking() {
  CollectRows();
  int64_t sum = 0;
  for (const BufferHolder& holder : row_holders_) sum += holder.most - holder.held;
  return sum;
}

void SlotBuffers::Reclaim(int64_t extents, int32_t growing) {
  CollectRows(growing);
  SPIN_CHECK_EQ(PlanReclaim(extents, row_holders_, heap_), extents);
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (row_holders_[i].change > 0) Shrink(rows_[i], row_holders_[i].change);
  }
  reclaimed_ += extents;
}

void SlotBuffers::HandOut(int64_t extents) {
  CollectRows();
  handed_out_ += PlanHandOut(extents, row_holders_, heap_);
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (row_holders_[i].change > 0) Grow(rows_[i], row_holders_[i].change);
  }
}

// New extents come cold, behind those that are there.
void SlotBuffers::Grow(int32_t r, int64_t extents) {
  CollectLayers(r);
  SPIN_CHECK_EQ(PlanHandOut(extents, layer_holders_, heap_), extents);
  const int64_t tokens = table_.row(r).reserved_tokens;
  for (int32_t layer = 0; layer < table_.geometry().num_layers; ++layer) {
    int64_t missing = layer_holders_[static_cast<size_t>(layer)].change;
    if (missing == 0) continue;
    for (; missing > 0; --missing) table_.Grant(PoolKind::kSlot, r, layer);
    const int32_t extents_now = table_.num_mapped(PoolKind::kSlot, r, layer);
    table_.SetNumSlots(r, layer,
                       footprint_.NumSlots(layer, tokens, extents_now, table_.row(r).budget_pages));
  }
}

void SlotBuffers::Shrink(int32_t r, int64_t extents) {
  CollectLayers(r);
  SPIN_CHECK_EQ(PlanReclaim(extents, layer_holders_, heap_), extents);
  const int64_t tokens = table_.row(r).reserved_tokens;
  for (int32_t layer = 0; layer < table_.geometry().num_layers; ++layer) {
    const auto given = static_cast<int32_t>(layer_holders_[static_cast<size_t>(layer)].change);
    if (given == 0) continue;
    const int32_t kept = table_.num_mapped(PoolKind::kSlot, r, layer) - given;
    // First the count: it evicts what is in the slots, whose owners it finds through the directory.
    table_.SetNumSlots(r, layer,
                       footprint_.NumSlots(layer, tokens, kept, table_.row(r).budget_pages));
    table_.Unmap(PoolKind::kSlot, r, layer, kept);
  }
}

}  // namespace spin
