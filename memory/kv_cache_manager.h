// The façade of memory/: may this sequence start, with what placement and budget; who gives room to
// whom.
//
// It works on counts and extent ids alone, on the engine thread; it never touches a page. Every
// change of the device tables is a TableCommand; the executor takes the commands and enqueues them
// before the next launch, behind the work that is in flight, so that memory given back here is
// never reused too early. Two tiers, sequences Resident (all KV in HBM, nothing on the
// host) until room is needed, then Tiered (all KV on the host, `num_slots` slots a stream in HBM).
//
// Tiered rows may hold more slots than their least while nobody else needs them; these are taken back
// before anybody is demoted for room or refused.
//
// A demotion takes several passes, because its bulk is copied beside the running work. Whoever asks
// for its room is refused meanwhile, with room_is_coming(), and asks again.
//
// Life of a row: Admit -> (prefill) -> FinishPrefill -> Advance... [Grow] [demotion by others]
// [Suspend -> Resume] -> Release.
//
// memory/README.md is the normative text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/status.h"
#include "kernels/params.h"
#include "memory/admission.h"
#include "memory/memory_plan.h"
#include "memory/traffic.h"

namespace spin {

enum class PlacementPolicy { kAuto, kResident, kTiered };

// Whether a host pool is of any use: under kAuto where some layer needs fewer slots than pages.
bool MayTier(PlacementPolicy placement, std::span<const LayerDemand> layers);

// Budgets of its own that a request may have: none, one that covers its whole context (exact mode), any.
enum class RowBudgets { kNone, kCovering, kAny };

struct KvCacheOptions {
  MemoryPlan plan;
  PlacementPolicy placement = PlacementPolicy::kAuto;
  // Buffering slots of a Tiered stream, times its selectable pages: at least, and at most while slots
  // are free. 0 <= min <= max.
  double min_buffer_ratio = 2;
  double max_buffer_ratio = 5;
  // Resident rows are demoted to lend what they free to Tiered ones.
  bool demote_for_buffers = false;
  int32_t max_model_len = 0;           // tokens of one sequence
  int32_t reserve_step_tokens = 2048;  // growth step of sequences without max_tokens
  std::vector<LayerDemand> layers;     // [num_layers]
  // The most pages that a request's own budget may have; less than the algorithm's own: that.
  int32_t max_budget_pages = 0;
  RowBudgets row_budgets = RowBudgets::kAny;
};

// Used and total extents of each pool, and the fraction of admissible capacity in use (of the
// tightest pool).
struct KvUsage {
  int32_t slot_extents = 0, slot_extents_total = 0;
  int32_t host_extents = 0, host_extents_total = 0;
  int32_t summary_extents = 0, summary_extents_total = 0;
  int32_t meta_segments = 0, meta_segments_total = 0;
  int32_t resident_rows = 0, tiered_rows = 0, suspended_rows = 0;
  int64_t resident_tokens = 0, tiered_tokens = 0, suspended_tokens = 0;  // prefilled or generated
  SlotCounts tiered_slots;  // granted to Tiered rows that are not suspended
  int64_t demotions = 0;
  int64_t spilled_bytes = 0;  // copied to the host by demotions since the start
  // Slot extents that Tiered rows hold above their least now, that were handed out to them and taken
  // back from them since the start.
  int64_t buffer_extents = 0, handed_out_extents = 0, reclaimed_extents = 0;
  double fraction = 0;
};

class KvCacheManager {
 public:
  explicit KvCacheManager(const KvCacheOptions& options);
  ~KvCacheManager();

  // Tokens that a sequence reserves at first: prompt + max_tokens where the client gave one, else
  // prompt + reserve_step_tokens; never more than max_model_len.
  int64_t ReservationTokens(int64_t prompt_tokens, std::optional<int64_t> max_tokens) const;

  // The budget of a request that asks for one: pages in all that a stream of its rows selects in a step; 0: the
  // algorithm's. With `exact`, enough for all of its `most_tokens`. InvalidArgument, beginning with "sparse: ", with
  // the limit that it misses. Any thread.
  absl::StatusOr<int32_t> BudgetPages(std::optional<int32_t> budget_tokens, bool exact,
                                      int64_t most_tokens) const;

  // Could it run if it were alone? ResourceExhausted with what is short and which key to raise,
  // when never.
  absl::Status CheckFits(int64_t prompt_tokens, int64_t reserve_tokens, int32_t num_sequences,
                         int32_t budget_pages = 0) const;

  // Room for `num_sequences` sequences of one prompt (n > 1: settled extents of the prompt are shared
  // by reference counts), up to `reserve_tokens` each; all or nothing. `budget_pages` as BudgetPages
  // gives it. The first row is the one that is prefilled; the others become usable at FinishPrefill.
  // nullopt: no room now, and nothing changed, but that demotions of other rows may have begun.
  std::optional<std::vector<RowId>> Admit(int64_t prompt_tokens, int64_t reserve_tokens,
                                          int32_t num_sequences, int32_t budget_pages = 0);

  // The prefill of rows[0] has been enqueued to its end: copies what forked rows must own, and
  // makes the rows demotable.
  void FinishPrefill(std::span<const RowId> rows);

  // Each of `rows` has had one more token enqueued.
  void Advance(std::span<const RowId> rows);

  // Tokens that the row may hold before it must grow.
  int64_t reserved_tokens(RowId row) const;
  int64_t length(RowId row) const;
  Placement placement(RowId row) const;

  // What a decode step reads of a sequence of `length` tokens, the new one among them. Any thread.
  StepReads ReadsOf(int64_t length, int32_t budget_pages = 0) const;
  // What is written when tokens [from, to) of the row are stored: by its prefill, or by a step.
  CacheWrites WritesOf(RowId row, int64_t from, int64_t to) const;
  // Any thread.
  const KvGeometry& geometry() const;

  // Raises the reservation to `reserve_tokens`. False: no room now, and nothing changed, but that
  // demotions may have begun, of this row too.
  bool Grow(RowId row, int64_t reserve_tokens);

  // A Tiered row gives back its slots; its KV stays on the host. Resume grants slots again (false:
  // no room now, as Grow). REQUIRES: prefill finished, Tiered.
  void Suspend(RowId row);
  bool Resume(RowId row);

  // What Admit, Grow or Resume refused last lacked slots and nothing else: a row that is suspended has
  // none to give.
  bool short_of_slots_alone() const;

  // Once a round: lends Tiered rows slots that are free, a bounded number, but for a reserve for the
  // next request. It changes nothing that can be had: Admit, Grow and Resume take back what they
  // need. `someone_waits`: a sequence that was refused does, or one that could run if it had room;
  // while nobody does a demotion may begin, if the options say so.
  void HandOutSlots(bool someone_waits);

  // Everything back. Any state. Before FinishPrefill the first row of a request with forks goes
  // only together with all of them, before any other call.
  void Release(RowId row);

  // Commands since the last call, in order, to be applied before the next launch. The span is valid
  // until the next call of a non-const method.
  std::span<const TableCommand> TakeCommands();

  // The next copies of demotions, at most `max`: kSpillExtent commands, to be run in the background,
  // behind the commands taken so far and everything launched before. Empty while those taken before
  // are under way. REQUIRES: all commands have been taken. Valid until FinishSpills.
  std::span<const TableCommand> TakeSpills(int32_t max);
  // The copies taken last have passed. Demotions that waited for them are finished: their room is
  // free from now on.
  void FinishSpills();
  // Copies of demotions wait or are under way: what is refused now may have room in a later pass,
  // without anybody giving way.
  bool room_is_coming() const;

  KvUsage usage() const;
  // Aborts when a pool, a reference count or a row contradicts another. Called by tests each step,
  // by the engine when idle.
  void CheckInvariants() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spin
