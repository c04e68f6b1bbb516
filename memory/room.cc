#include "memory/room.h"

#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "memory/demotion.h"

namespace spin {

namespace {

// Extents handed out at a time: what a round of the engine may cost, in commands. Some seconds of
// rounds fill the buffers of a large machine, which stay for minutes.
constexpr int64_t kMostHandedOut = 128;
// A request counts so much in the mean of those admitted.
constexpr int64_t kMeanOf = 4;

}  // namespace

Room::Room(const Footprint* footprint, RowTable* table, const Policy& policy)
    : footprint_(*footprint), table_(*table), policy_(policy), buffers_(footprint, table) {
  const auto rows = static_cast<size_t>(table_.num_rows());
  units_.reserve(rows);
  chosen_.reserve(rows);
  members_.reserve(rows);
}

PoolCounts Room::Available() {
  PoolCounts available = table_.FreeCounts();
  available.slots += buffers_.extents();
  return available;
}

void Room::Claim(int64_t slots, int32_t growing) {
  const int64_t missing = slots - table_.FreeCounts().slots;
  if (missing > 0) buffers_.Reclaim(missing, growing);
}

void Room::CollectMembers(int32_t r) {
  members_.clear();
  const int32_t group = table_.row(r).group;
  if (group == kNoGroup) {
    members_.push_back(r);
    return;
  }
  for (int32_t m = 0; m < table_.num_rows(); ++m) {
    const Row& row = table_.row(m);
    if (row.state != RowState::kFree && row.group == group) members_.push_back(m);
  }
  SPIN_CHECK_EQ(static_cast<int32_t>(members_.size()), table_.group(group).members);
}

DemotionUnit Room::CountUnit(int32_t growing, int64_t growth_tokens) const {
  const int32_t group = table_.row(members_.front()).group;
  const int64_t shared = group == kNoGroup ? 0 : table_.group(group).shared_extents;
  DemotionUnit unit{.first_row = members_.front(), .held = {}, .wanted = {}};
  int64_t held = shared, wanted = shared, segments = 0;  // extents a layer
  for (const int32_t m : members_) {
    const Row& row = table_.row(m);
    const int64_t reserved = row.reserved_tokens;
    const int64_t target = m == growing ? growth_tokens : reserved;
    held += footprint_.Extents(reserved) - shared;
    wanted += footprint_.Extents(target) - shared;
    segments += footprint_.Extents(target);
    unit.wanted.slots += footprint_.AllTieredSlotExtents(target, row.budget_pages);
  }
  const int64_t layers = table_.geometry().num_layers;
  unit.held.slots = layers * held;
  unit.held.summaries = table_.has_summaries() ? layers * held : 0;
  unit.wanted.host = layers * wanted;
  unit.wanted.summaries = table_.has_summaries() ? layers * wanted : 0;
  unit.wanted.meta = layers * segments;
  return unit;
}

int32_t Room::CollectUnits(int32_t growing, int64_t growth_tokens) {
  units_.clear();
  coming_slots_ = table_.SlotsOfSpills();
  if (!policy_.may_tier || !policy_.may_stay) return kNoUnit;
  int32_t growing_unit = kNoUnit;
  for (int32_t r = 0; r < table_.num_rows(); ++r) {
    const Row& row = table_.row(r);
    if (row.state != RowState::kReady || row.placement != Placement::kResident) continue;
    CollectMembers(r);
    if (members_.front() != r) continue;  // counted with its first row
    const DemotionUnit unit = CountUnit(growing, growth_tokens);
    if (row.demotion != 0) {
      coming_slots_ += unit.held.slots - unit.wanted.slots;
      continue;
    }
    if (std::find(members_.begin(), members_.end(), growing) != members_.end()) {
      growing_unit = static_cast<int32_t>(units_.size());
    }
    units_.push_back(unit);
  }
  return growing_unit;
}

bool Room::Make(const PoolCounts& need, int32_t growing, int64_t growth_tokens) {
  if (Has(need)) return true;
  const int32_t growing_unit = CollectUnits(growing, growth_tokens);
  PoolCounts soon = Available();
  soon.slots += coming_slots_;
  if (!PlanDemotions(soon, need, units_, growing_unit, chosen_)) return false;
  DemoteChosen();
  return true;
}

void Room::DemoteChosen() {
  for (const int32_t unit : chosen_) {
    CollectMembers(units_[static_cast<size_t>(unit)].first_row);
    BeginDemotion(table_, footprint_, members_, ++demotions_begun_);
  }
  FinishDemotions();  // of rows so short that there is nothing to wait for
}

void Room::FinishDemotions() {
  const int64_t oldest = table_.OldestSpill();
  for (int32_t r = 0; r < table_.num_rows(); ++r) {
    const int64_t demotion = table_.row(r).demotion;
    if (demotion == 0 || demotion >= oldest) continue;
    CollectMembers(r);
    FinishDemotion(table_, footprint_, members_);
    demotions_ += static_cast<int64_t>(members_.size());
  }
}

Placement Room::Place(const PoolCounts& resident, const PoolCounts& tiered) {
  if (policy_.may_stay && Has(resident)) return Placement::kResident;
  if (!policy_.may_tier) return Placement::kNone;
  if (Has(tiered)) return Placement::kTiered;
  if (!policy_.may_stay) return Placement::kNone;
  if (Make(tiered)) return Has(tiered) ? Placement::kTiered : Placement::kNone;
  if (Make(resident) && Has(resident)) return Placement::kResident;
  return Placement::kNone;
}

void Room::OnAdmitted(const PoolCounts& tiered_need) {
  const int64_t slots = tiered_need.slots;
  typical_slots_ =
      typical_slots_ == 0 ? slots : CeilDiv((kMeanOf - 1) * typical_slots_ + slots, kMeanOf);
}

void Room::OnRefused(const PoolCounts& need) {
  const PoolCounts available = Available();
  PoolCounts rest = need;
  rest.slots = 0;
  short_of_slots_alone_ = available.slots < need.slots && available.Covers(rest);
  awaited_slots_ = std::max(awaited_slots_, need.slots);
}

void Room::HandOut(bool someone_waits) {
  if (!someone_waits) awaited_slots_ = 0;
  if (table_.HasSpills()) return;  // demotions make room for somebody
  const int64_t spare = table_.FreeCounts().slots - std::max(typical_slots_, awaited_slots_);
  if (spare > 0) {
    buffers_.HandOut(std::min(spare, kMostHandedOut));
  } else if (policy_.demote_for_buffers && !someone_waits) {
    DemoteForBuffers();
  }
}

void Room::DemoteForBuffers() {
  const int64_t lacking = buffers_.lacking();
  if (lacking == 0) return;
  CollectUnits(kAbsent, 0);
  const PoolCounts available = Available();
  PoolCounts need;
  need.slots = available.slots + 1;
  if (!PlanDemotions(available, need, units_, kNoUnit, chosen_)) return;
  const DemotionUnit& unit = units_[static_cast<size_t>(chosen_.front())];
  if (2 * lacking >= unit.held.slots - unit.wanted.slots) DemoteChosen();
}

double Room::Fraction() {
  const PoolCounts free = Available();
  CollectUnits(kAbsent, 0);
  PoolCounts reachable = free;
  reachable.slots += coming_slots_;
  for (const DemotionUnit& unit : units_) {
    const PoolCounts after = reachable + unit.held - unit.wanted;
    if (after.slots > reachable.slots && after.Covers({})) reachable = after;
  }
  const auto fraction = [&](PoolKind kind, int64_t available) {
    const int64_t total = table_.pool(kind).total();
    return total == 0 ? 0.0 : static_cast<double>(total - available) / static_cast<double>(total);
  };
  return std::max({fraction(PoolKind::kSlot, reachable.slots), fraction(PoolKind::kHost, free.host),
                   fraction(PoolKind::kSummary, free.summaries),
                   fraction(PoolKind::kMeta, free.meta)});
}

}  // namespace spin
