// The host's mirror of the directories: every row, what it holds of each pool, and the commands
// that tell the device.
//
// A change is made here once: mirror, reference count and TableCommand together, so that they
// cannot drift apart. Policy is elsewhere (admission.h, kv_cache_manager.cc). Engine thread.
// Indices are plain int32, as in the device tables.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/params.h"
#include "memory/admission.h"
#include "memory/extent_pool.h"
#include "memory/memory_plan.h"

namespace spin {

enum class PoolKind : int32_t { kSlot = 0, kHost = 1, kSummary = 2, kMeta = 3 };
inline constexpr int32_t kNumPoolKinds = 4;
inline constexpr int32_t kNoGroup = -1;

enum class RowState : int32_t {
  kFree,
  kPrefill,    // admitted; its prefill runs
  kForked,     // admitted; becomes usable when the prefill of the first row of its request ends
  kReady,      // decodes; may be demoted (Resident), suspended (Tiered) or grow
  kSuspended,  // Tiered without slots
};

struct Row {
  RowState state = RowState::kFree;
  Placement placement = Placement::kNone;
  int64_t prompt_tokens = 0;
  int64_t reserved_tokens = 0;
  int64_t length = 0;        // tokens stored or enqueued
  int32_t budget_pages = 0;  // of its request, see Footprint
  int32_t group = kNoGroup;  // rows that share the settled extents of one prompt
  // Number of the demotion under way, 0: none. The row is Resident and decodes; its host extents and
  // meta segments are granted already, its first `spilled_extents` entries are copied to the host.
  int64_t demotion = 0;
  int32_t spilled_extents = 0;
};

// Sequences of one prompt: entries [0, shared_extents) of their directories are the same extents,
// in every layer.
struct ForkGroup {
  int32_t members = 0;  // 0: unused
  int32_t shared_extents = 0;
};

class RowTable {
 public:
  explicit RowTable(const MemoryPlan& plan);

  const KvGeometry& geometry() const { return geometry_; }
  bool has_summaries() const { return geometry_.summary_elements > 0; }
  int32_t num_rows() const { return geometry_.max_rows; }
  int32_t num_free_rows() const { return num_free_rows_; }

  Row& row(int32_t row);
  const Row& row(int32_t row) const;
  const ForkGroup& group(int32_t group) const;
  const ExtentPool& pool(PoolKind kind) const { return pools_[static_cast<size_t>(kind)]; }
  PoolCounts FreeCounts() const;

  // The lowest free row, in state kPrefill. REQUIRES: there is one.
  int32_t OpenRow();
  // Makes the rows a group that shares `shared_extents` > 0 extents.
  void FormGroup(std::span<const RowId> rows, int32_t shared_extents);
  // Unmaps all that the row holds and frees it.
  void CloseRow(int32_t row);

  // Extent of a directory entry, or kAbsent; entries that are mapped (a prefix of the directory).
  int32_t extent(PoolKind kind, int32_t row, int32_t layer, int32_t i) const;
  int32_t num_mapped(PoolKind kind, int32_t row, int32_t layer) const;
  int32_t num_slots(int32_t row, int32_t layer) const;
  // Slot entries that are mapped, of all layers.
  int32_t slot_extents(int32_t row) const;
  bool IsShared(PoolKind kind, int32_t row, int32_t layer, int32_t i) const;

  // The next entry of a directory: a new extent (REQUIRES: one is free), or the extent of the same
  // entry of `from_row`.
  void Grant(PoolKind kind, int32_t row, int32_t layer);
  void Share(PoolKind kind, int32_t row, int32_t layer, int32_t from_row);
  // Gives back and unmaps the entries from `first` on.
  void Unmap(PoolKind kind, int32_t row, int32_t layer, int32_t first);
  // Slot entries [begin, begin + count) become entries [0, count), owners cleared; the others are
  // given back.
  void KeepSlots(int32_t row, int32_t layer, int32_t begin, int32_t count);
  // Issues the row's meta segments again: every entry kAbsent.
  void ClearMeta(int32_t row, int32_t layer);

  void SetNumSlots(int32_t row, int32_t layer, int32_t num_slots);
  void SetPlacement(int32_t row, Placement placement);
  void Emit(TableCommandKind kind, int32_t row, int32_t layer, int32_t index, int32_t value);

  // Commands since the last call; valid until the next call of Emit and whatever emits.
  std::span<const TableCommand> TakeCommands();

  // Copies in the background: a queue in order of demotions. Slot entry `i` of the row goes to its
  // host entry `i`. A copy refers to both of its extents until it has passed, so that neither is
  // granted again under it. One that no row needs any more leaves the queue, if it is still there.
  void QueueSpill(int32_t row, int32_t layer, int32_t i);
  // The next copies, at most `max`; none while those taken before are under way. They go behind all
  // commands so far, which REQUIRES that these have been taken. Valid until FinishSpills.
  std::span<const TableCommand> TakeSpills(int32_t max);
  // The copies that were taken have passed.
  void FinishSpills();
  bool HasSpills() const { return !spills_.empty(); }
  // The demotion of the oldest copy that has not passed; those before it have nothing to wait for.
  int64_t OldestSpill() const;
  // Slot extents that only copies still refer to: free when they have passed.
  int64_t SlotsOfSpills() const;
  // Extents copied to the host since the start: those handed out, and those that commands copy.
  int64_t spilled_extents() const { return spilled_extents_; }

  // Aborts when pools, reference counts, directories, rows and groups contradict each other.
  void CheckInvariants(const Footprint& footprint) const;

 private:
  void CheckPools() const;
  void CheckRow(int32_t row, const Footprint& footprint) const;
  void CheckSharing() const;
  size_t Entry(int32_t row, int32_t layer, int32_t i) const;
  size_t Place(int32_t row, int32_t layer) const;
  // The count of mapped entries grows by `change`.
  void CountMapped(PoolKind kind, int32_t row, int32_t layer, int32_t change);
  ExtentPool& mutable_pool(PoolKind kind) { return pools_[static_cast<size_t>(kind)]; }

  KvGeometry geometry_;
  std::vector<Row> rows_;          // [max_rows]
  std::vector<ForkGroup> groups_;  // [max_rows]
  int32_t num_free_rows_ = 0;
  std::array<ExtentPool, kNumPoolKinds> pools_;
  std::array<std::vector<int32_t>, kNumPoolKinds>
      directories_;                                         // [max_rows][num_layers][max_extents]
  std::array<std::vector<int32_t>, kNumPoolKinds> mapped_;  // [max_rows][num_layers]
  std::vector<int32_t> num_slots_;                          // [max_rows][num_layers]
  std::vector<int32_t> slot_extents_;                       // [max_rows] mapped, of all layers
  std::vector<TableCommand> commands_, taken_;

  struct Spill {
    int64_t demotion = 0;
    ExtentId slot, host;
  };
  void DropSpill(const Spill& spill);
  void DropUnneededSpills();

  std::vector<Spill> spills_;  // oldest first
  int64_t spilled_extents_ = 0;
  size_t num_taken_spills_ = 0;             // the first ones, under way
  std::vector<TableCommand> taken_spills_;  // as they were handed out
};

}  // namespace spin
