// Room: who gives way in HBM to whom. Takes buffers back (slot_buffers.h); plans demotions on counts
// (admission.h), begins them, and finishes them when their copies have passed (demotion.h). Engine
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/admission.h"
#include "memory/row_table.h"
#include "memory/slot_buffers.h"

namespace spin {

class Room {
 public:
  // What rows may be, and whether they are demoted to lend their slots to others.
  struct Policy {
    bool may_stay = true;  // Resident
    bool may_tier = true;  // Tiered
    bool demote_for_buffers = false;
  };

  // Both outlive the room.
  Room(const Footprint* footprint, RowTable* table, const Policy& policy);

  // What is free, the buffers of Tiered rows included: they can be taken back at once.
  PoolCounts Available();
  bool Has(const PoolCounts& need) { return Available().Covers(need); }
  // Makes sure that so many slot extents are free; buffers are taken back for what is missing.
  // `growing` as SlotBuffers has it. REQUIRES: they are available.
  void Claim(int64_t slots, int32_t growing = kAbsent);
  // Begins the demotions that `need` takes beside those under way; `growing` (a row or kAbsent) is
  // counted with `growth_tokens` as its reservation. False: it cannot be met so, nothing changed.
  // True: it is met now, as Has says, or will be when they have finished.
  bool Make(const PoolCounts& need, int32_t growing = kAbsent, int64_t growth_tokens = 0);
  // Finishes the demotions that have nothing left to wait for.
  void FinishDemotions();

  // The placement in which a new request fits now; kNone: in none, and demotions have begun where
  // they help.
  Placement Place(const PoolCounts& resident, const PoolCounts& tiered);

  // Used part of the tightest pool; buffers, and slots that demotions could give back as far as the
  // host tier can take them, count as free.
  double Fraction();

  // A request was admitted, or somebody was refused, whose need was so much.
  void OnAdmitted(const PoolCounts& tiered_need);
  void OnRefused(const PoolCounts& need);
  // Who was refused last lacked slots and nothing else.
  bool short_of_slots_alone() const { return short_of_slots_alone_; }

  // Lends free slots to Tiered rows, a bounded number of extents at a time, but for a reserve: what a
  // typical request needs, and while `someone_waits` what those that were refused need. With nothing
  // to lend and nobody waiting, demotes for it where that is the policy.
  void HandOut(bool someone_waits);
  // Extents lent now and since the start, and taken back since the start.
  SlotBuffers& buffers() { return buffers_; }

  int64_t demotions() const { return demotions_; }  // rows that became Tiered

 private:
  // Resident rows that share a prompt's extents with `row`, ascending; the row alone when it shares
  // with none.
  void CollectMembers(int32_t r);
  // The unit of members_.
  DemotionUnit CountUnit(int32_t growing, int64_t growth_tokens) const;
  // What could be demoted now, and how many slots come free without that. The unit of `growing` is
  // returned, or kNoUnit.
  int32_t CollectUnits(int32_t growing, int64_t growth_tokens);
  // Begins the demotions that chosen_ names, and finishes those with nothing to wait for.
  void DemoteChosen();
  // Begins the demotion of one unit if half of what it frees at least is lacking in buffers.
  void DemoteForBuffers();

  const Footprint& footprint_;
  RowTable& table_;
  const Policy policy_;
  SlotBuffers buffers_;
  int64_t demotions_ = 0;
  int64_t demotions_begun_ = 0;  // of units: numbers them
  int64_t typical_slots_ = 0;    // extents that a request needs as Tiered: a mean of the latest
  int64_t awaited_slots_ = 0;    // the most that one was refused, while someone waits
  bool short_of_slots_alone_ = false;
  int64_t coming_slots_ = 0;  // scratch, as all that follows
  std::vector<DemotionUnit> units_;
  std::vector<int32_t> chosen_;
  std::vector<int32_t> members_;
};

}  // namespace spin
