// Demotion: Resident rows become Tiered. Their tokens go to the host extent by extent, a few slots
// stay as their cache.
//
// It has two phases, so that no running row waits for the bulk of the copies. Begin reserves the
// host's side and queues the extents that nothing changes any more to be copied in the background
// (RowTable::QueueSpill); the rows stay Resident and go on. When those copies have passed, Finish
// spills the rest in the order of the commands and makes the rows Tiered.
#pragma once

#include <cstdint>
#include <span>

#include "memory/admission.h"
#include "memory/row_table.h"

namespace spin {

// Begins the demotion of one DemotionUnit, its rows ascending. `number` grows from demotion to
// demotion. The prompt that a group shares is spilled once, its host extents are shared. REQUIRES:
// one row, or all rows of a group; Resident and kReady, in no demotion; the host pool and the meta
// pool have room for it (PlanDemotions).
void BeginDemotion(RowTable& table, const Footprint& footprint, std::span<const int32_t> rows,
                   int64_t number);

// Finishes it, for those of the unit's rows that are left. Every row keeps as cache slots the last
// extents that hold tokens and are its own; extents of a shared prompt are dropped by all but the
// last holder (owners and ages belong to one row), and cold extents take their place behind.
// REQUIRES: its copies have passed.
void FinishDemotion(RowTable& table, const Footprint& footprint, std::span<const int32_t> rows);

}  // namespace spin
