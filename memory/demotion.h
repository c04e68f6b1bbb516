// Demotion: Resident rows become Tiered. Their tokens go to the host extent by extent, a few slots
// stay as their cache.
#pragma once

#include <cstdint>
#include <span>

#include "memory/admission.h"
#include "memory/row_table.h"

namespace spin {

// Demotes the rows of one DemotionUnit, ascending. Every row keeps as cache slots the last extents
// that hold tokens and are its own; extents of a shared prompt are dropped by all but the last
// holder (owners and ages belong to one row), and cold extents take their place behind. The shared
// prompt is spilled once, its host extents shared. REQUIRES: one row, or all rows of a group;
// Resident and kReady; the pools have room for it (PlanDemotions).
void DemoteRows(RowTable& table, const Footprint& footprint, std::span<const int32_t> rows);

}  // namespace spin
