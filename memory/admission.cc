#include "memory/admission.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/math.h"

namespace spin {

bool PoolCounts::Covers(const PoolCounts& need) const {
  return slots >= need.slots && host >= need.host && summaries >= need.summaries &&
         meta >= need.meta;
}

PoolCounts& PoolCounts::operator+=(const PoolCounts& other) {
  slots += other.slots;
  host += other.host;
  summaries += other.summaries;
  meta += other.meta;
  return *this;
}

PoolCounts& PoolCounts::operator-=(const PoolCounts& other) {
  slots -= other.slots;
  host -= other.host;
  summaries -= other.summaries;
  meta -= other.meta;
  return *this;
}

std::vector<LayerGroup> GroupLayers(std::span<const LayerDemand> layers) {
  std::vector<LayerGroup> groups;
  for (const LayerDemand& layer : layers) {
    auto group = std::ranges::find(groups, layer, &LayerGroup::demand);
    if (group == groups.end()) group = groups.insert(group, {.demand = layer, .num_layers = 0});
    ++group->num_layers;
  }
  return groups;
}

Footprint::Footprint(const KvGeometry& geometry, std::span<const LayerDemand> layers,
                     double min_buffer_ratio, double max_buffer_ratio)
    : geometry_(geometry),
      layers_(layers.begin(), layers.end()),
      groups_(GroupLayers(layers)),
      min_buffer_ratio_(min_buffer_ratio),
      max_buffer_ratio_(max_buffer_ratio) {
  SPIN_CHECK_EQ(static_cast<int32_t>(layers_.size()), geometry_.num_layers);
  SPIN_CHECK(std::isfinite(max_buffer_ratio_) && min_buffer_ratio_ >= 0);
  SPIN_CHECK(min_buffer_ratio_ <= max_buffer_ratio_);
  for (const LayerDemand& layer : layers_) {
    SPIN_CHECK(layer.whole_context || layer.fixed_pages + layer.selectable_pages > 0);
    SPIN_CHECK(layer.fixed_pages >= 0 && layer.selectable_pages >= 0 && layer.context_divisor >= 0);
  }
}

int32_t Footprint::Extents(int64_t tokens) const {
  const int64_t extents = CeilDiv(tokens, kExtentTokens);
  SPIN_CHECK(tokens >= 0 && extents <= geometry_.max_extents);
  return static_cast<int32_t>(extents);
}

int32_t Footprint::Pages(int64_t tokens) const {
  const int64_t pages = CeilDiv(tokens, geometry_.page_tokens);
  SPIN_CHECK(tokens >= 0 && pages <= geometry_.max_pages());
  return static_cast<int32_t>(pages);
}

int32_t Footprint::UsableSlots(int32_t layer, int64_t tokens, double buffer_ratio,
                               int32_t budget_pages) const {
  SPIN_CHECK(layer >= 0 && layer < geometry_.num_layers);
  const LayerDemand& demand = layers_[static_cast<size_t>(layer)];
  const int32_t pages = Pages(tokens);
  if (demand.whole_context) return pages;
  SPIN_CHECK(budget_pages == 0 || budget_pages > demand.fixed_pages);
  const int32_t selectable =
      budget_pages > 0 ? budget_pages - demand.fixed_pages : demand.Selectable(pages);
  const double budget = demand.fixed_pages + std::ceil(selectable * (1 + buffer_ratio));
  return budget >= pages ? pages : static_cast<int32_t>(budget);
}

int64_t Footprint::MandatorySlots(int64_t tokens, int32_t budget_pages) const {
  const int32_t pages = Pages(tokens);
  int64_t slots = 0;
  for (const LayerGroup& group : groups_) {
    slots += group.num_layers * group.demand.Mandatory(pages, budget_pages);
  }
  return slots * geometry_.num_kv_heads;
}

int32_t Footprint::min_budget_pages() const {
  int32_t pages = 0;
  for (const LayerGroup& group : groups_) {
    if (!group.demand.whole_context) pages = std::max(pages, group.demand.fixed_pages + 1);
  }
  return pages;
}

int32_t Footprint::max_mandatory_pages() const {
  int32_t pages = 0;
  for (const LayerGroup& group : groups_) {
    if (group.demand.whole_context) continue;
    pages = std::max(pages, group.demand.Mandatory(geometry_.max_pages()));
  }
  return pages;
}

int32_t Footprint::TieredSlotExtents(int32_t layer, int64_t tokens, int32_t budget_pages) const {
  return CeilDiv(UsableSlots(layer, tokens, min_buffer_ratio_, budget_pages),
                 geometry_.extent_pages());
}

int64_t Footprint::AllTieredSlotExtents(int64_t tokens, int32_t budget_pages) const {
  int64_t sum = 0;
  for (int32_t layer = 0; layer < geometry_.num_layers; ++layer) {
    sum += TieredSlotExtents(layer, tokens, budget_pages);
  }
  return sum;
}

int32_t Footprint::MostSlotExtents(int32_t layer, int64_t tokens, int32_t budget_pages) const {
  return CeilDiv(UsableSlots(layer, tokens, max_buffer_ratio_, budget_pages),
                 geometry_.extent_pages());
}

int32_t Footprint::NumSlots(int32_t layer, int64_t tokens, int32_t slot_extents,
                            int32_t budget_pages) const {
  SPIN_CHECK(slot_extents >= 0 && slot_extents <= geometry_.max_extents);
  return std::min(UsableSlots(layer, tokens, max_buffer_ratio_, budget_pages),
                  slot_extents * geometry_.extent_pages());
}

PoolCounts Footprint::Resident(int64_t prompt_tokens, int64_t reserve_tokens,
                               int32_t num_sequences) const {
  SPIN_CHECK(prompt_tokens <= reserve_tokens && num_sequences >= 1);
  const int64_t shared = geometry_.SettledExtents(prompt_tokens);
  const int64_t extents =
      Extents(reserve_tokens) + (num_sequences - 1) * (Extents(reserve_tokens) - shared);
  PoolCounts counts;
  counts.slots = geometry_.num_layers * extents;
  counts.summaries = geometry_.summary_elements > 0 ? counts.slots : 0;
  return counts;
}

PoolCounts Footprint::Tiered(int64_t prompt_tokens, int64_t reserve_tokens, int32_t num_sequences,
                             int32_t budget_pages) const {
  PoolCounts counts = Resident(prompt_tokens, reserve_tokens, num_sequences);
  counts.host = counts.slots;
  counts.slots = num_sequences * AllTieredSlotExtents(reserve_tokens, budget_pages);
  counts.meta = int64_t{num_sequences} * geometry_.num_layers * Extents(reserve_tokens);
  return counts;
}

bool PlanDemotions(PoolCounts free, PoolCounts need, std::span<const DemotionUnit> units,
                   int32_t growing, std::vector<int32_t>& chosen) {
  SPIN_CHECK(growing == kNoUnit || (growing >= 0 && growing < static_cast<int32_t>(units.size())));
  chosen.clear();
  bool settled = false;  // the growing unit is among the chosen
  while (!free.Covers(need)) {
    int32_t best = kNoUnit;
    int64_t best_gain = 0;
    for (int32_t i = 0; i < static_cast<int32_t>(units.size()); ++i) {
      if (std::find(chosen.begin(), chosen.end(), i) != chosen.end()) continue;
      if (i == growing && settled) continue;
      const DemotionUnit& unit = units[static_cast<size_t>(i)];
      const PoolCounts rest = i == growing ? PoolCounts{} : need;
      PoolCounts after = free + unit.held - unit.wanted - rest;
      after.slots = 0;  // others may still follow
      if (!after.Covers({})) continue;
      const int64_t gain =
          unit.held.slots - unit.wanted.slots + (i == growing ? need.slots : int64_t{0});
      if (gain > best_gain) {
        best = i;
        best_gain = gain;
      }
    }
    if (best == kNoUnit) {
      chosen.clear();
      return false;
    }
    const DemotionUnit& unit = units[static_cast<size_t>(best)];
    free += unit.held;
    free -= unit.wanted;
    if (best == growing) {
      settled = true;
      need = {};
    } else {
      chosen.push_back(best);
    }
  }
  if (settled) chosen.push_back(growing);
  return true;
}

}  // namespace spin
