#include "memory/kv_cache_manager.h"

#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "common/units.h"
#include "memory/admission.h"
#include "memory/room.h"
#include "memory/row_table.h"

namespace spin {

struct KvCacheManager::Impl {
  explicit Impl(const KvCacheOptions& o)
      : options(o),
        footprint(o.plan.geometry, o.layers, o.min_buffer_ratio, o.max_buffer_ratio),
        traffic(o.plan.geometry, o.layers),
        table(o.plan),
        may_stay(o.placement != PlacementPolicy::kTiered),
        may_tier(o.plan.num_host_extents > 0 && MayTier(o.placement, o.layers)),
        room(&footprint, &table,
             {.may_stay = may_stay,
              .may_tier = may_tier,
              .demote_for_buffers = o.demote_for_buffers}) {}

  Row& Live(RowId id) {
    Row& row = table.row(id.value);
    SPIN_CHECK(row.state != RowState::kFree);
    return row;
  }

  // What `row` takes to reserve `tokens` instead of what it does.
  PoolCounts GrowthNeed(const Row& row, int64_t tokens) const;
  // Grants up to the reservation of a row in its placement; entries [0, shared) come from
  // `first_row`.
  void GrantRow(int32_t r, int32_t shared, int32_t first_row);
  void GrantSlots(int32_t r);
  int32_t max_budget_pages() const {
    const int32_t configured = std::min(options.max_budget_pages, footprint.geometry().max_pages());
    return std::max(configured, footprint.max_mandatory_pages());
  }
  // Page slots that `r` has, over all layers and KV heads.
  int64_t GrantedSlots(int32_t r) const;
  // Slot extents that `r` lacks in its placement for its reservation.
  int64_t MissingSlots(int32_t r) const;

  KvCacheOptions options;
  Footprint footprint;
  Traffic traffic;
  RowTable table;
  const bool may_stay, may_tier;
  Room room;
};

bool MayTier(PlacementPolicy placement, std::span<const LayerDemand> layers) {
  if (placement != PlacementPolicy::kAuto) return placement == PlacementPolicy::kTiered;
  return !std::ranges::all_of(layers, &LayerDemand::whole_context);
}

PoolCounts KvCacheManager::Impl::GrowthNeed(const Row& row, int64_t tokens) const {
  const bool tiered = row.placement == Placement::kTiered;
  const auto held = [&](int64_t reserved) {
    PoolCounts counts = footprint.Tiered(0, reserved, 1, row.budget_pages);
    if (!tiered) counts.slots = footprint.Resident(0, reserved, 1).slots;
    if (!tiered && row.demotion == 0) counts.host = counts.meta = 0;
    return counts;
  };
  return held(tokens) - held(row.reserved_tokens);
}

void KvCacheManager::Impl::GrantSlots(int32_t r) {
  const int64_t tokens = table.row(r).reserved_tokens;
  const int32_t budget = table.row(r).budget_pages;
  for (int32_t layer = 0; layer < table.geometry().num_layers; ++layer) {
    const int32_t wanted = footprint.TieredSlotExtents(layer, tokens, budget);
    while (table.num_mapped(PoolKind::kSlot, r, layer) < wanted) {
      table.Grant(PoolKind::kSlot, r, layer);
    }
    table.SetNumSlots(
        r, layer,
        footprint.NumSlots(layer, tokens, table.num_mapped(PoolKind::kSlot, r, layer), budget));
  }
}

int64_t KvCacheManager::Impl::GrantedSlots(int32_t r) const {
  int64_t slots = 0;
  for (int32_t layer = 0; layer < footprint.geometry().num_layers; ++layer) {
    slots += table.num_slots(r, layer);
  }
  return slots * footprint.geometry().num_kv_heads;
}

int64_t KvCacheManager::Impl::MissingSlots(int32_t r) const {
  const int64_t tokens = table.row(r).reserved_tokens;
  const bool tiered = table.row(r).placement == Placement::kTiered;
  int64_t missing = 0;
  for (int32_t layer = 0; layer < table.geometry().num_layers; ++layer) {
    const int32_t wanted =
        tiered ? footprint.TieredSlotExtents(layer, tokens, table.row(r).budget_pages)
               : footprint.Extents(tokens);
    missing += std::max(wanted - table.num_mapped(PoolKind::kSlot, r, layer), 0);
  }
  return missing;
}

void KvCacheManager::Impl::GrantRow(int32_t r, int32_t shared, int32_t first_row) {
  const Row& row = table.row(r);
  const bool tiered = row.placement == Placement::kTiered;
  const bool on_host = tiered || row.demotion != 0;
  const int32_t extents = footprint.Extents(row.reserved_tokens);
  const auto extend = [&](PoolKind kind, int32_t layer, int32_t num_shared) {
    for (int32_t i = table.num_mapped(kind, r, layer); i < extents; ++i) {
      if (i < num_shared) {
        table.Share(kind, r, layer, first_row);
      } else {
        table.Grant(kind, r, layer);
      }
    }
  };
  for (int32_t layer = 0; layer < table.geometry().num_layers; ++layer) {
    if (table.has_summaries()) extend(PoolKind::kSummary, layer, shared);
    if (!tiered) extend(PoolKind::kSlot, layer, shared);
    if (!on_host) continue;
    extend(PoolKind::kHost, layer, shared);
    extend(PoolKind::kMeta, layer, 0);
  }
  if (tiered) GrantSlots(r);
}

// ---- The façade --------------------------------------------------------------------------------

KvCacheManager::KvCacheManager(const KvCacheOptions& options)
    : impl_(std::make_unique<Impl>(options)) {
  SPIN_CHECK_GT(options.max_model_len, 0);
  SPIN_CHECK_LE(CeilDiv(options.max_model_len, kExtentTokens), options.plan.geometry.max_extents);
  SPIN_CHECK_GT(options.reserve_step_tokens, 0);
}

KvCacheManager::~KvCacheManager() = default;

int64_t KvCacheManager::ReservationTokens(int64_t prompt_tokens,
                                          std::optional<int64_t> max_tokens) const {
  const int64_t limit = impl_->options.max_model_len;
  const int64_t output = max_tokens.value_or(impl_->options.reserve_step_tokens);
  SPIN_CHECK(prompt_tokens >= 0 && output >= 0);
  if (output >= limit - prompt_tokens) return std::max(limit, prompt_tokens);
  return prompt_tokens + output;
}

absl::StatusOr<int32_t> KvCacheManager::BudgetPages(std::optional<int32_t> budget_tokens,
                                                    bool exact, int64_t most_tokens) const {
  if (!budget_tokens.has_value() && !exact) return 0;
  const RowBudgets allowed = impl_->options.row_budgets;
  if (allowed == RowBudgets::kNone || (allowed == RowBudgets::kCovering && !exact)) {
    return InvalidArgument(
        "sparse: this server's algorithm has one budget, the same for all requests%s",
        allowed == RowBudgets::kNone ? "" : ", or exact, which attends to everything");
  }
  const Footprint& footprint = impl_->footprint;
  const int32_t page_tokens = footprint.geometry().page_tokens;
  const int32_t least = footprint.min_budget_pages();
  const int32_t most = impl_->max_budget_pages();
  if (exact) {
    const int32_t pages = footprint.Pages(most_tokens);
    if (least == 0) return 0;
    if (pages <= most) return std::max(pages, least);
    return InvalidArgument(
        "sparse: exact needs a budget for all %d tokens of prompt and output; this server's goes "
        "to %d (sparse.max_budget_tokens)",
        most_tokens, most * page_tokens);
  }
  if (least == 0) {
    return InvalidArgument(
        "sparse: this server attends to the whole context: there is no budget_tokens to choose");
  }
  const int32_t pages = *budget_tokens / page_tokens;
  if (pages < least || pages > most) {
    return InvalidArgument(
        "sparse: budget_tokens must be between %d and %d (sparse.max_budget_tokens), not %d",
        least * page_tokens, most * page_tokens, *budget_tokens);
  }
  return pages;
}

absl::Status KvCacheManager::CheckFits(int64_t prompt_tokens, int64_t reserve_tokens,
                                       int32_t num_sequences, int32_t budget_pages) const {
  const Impl& impl = *impl_;
  const MemoryPlan& plan = impl.options.plan;
  if (prompt_tokens > reserve_tokens || reserve_tokens > impl.options.max_model_len) {
    return InvalidArgument("%d tokens do not fit a context of %d tokens",
                           std::max(prompt_tokens, reserve_tokens), impl.options.max_model_len);
  }
  if (num_sequences > plan.geometry.max_rows) {
    return ResourceExhausted(
        "%d sequences of one request exceed the %d that run at once; raise scheduler.max_num_seqs",
        num_sequences, plan.geometry.max_rows);
  }
  const PoolCounts total = {.slots = plan.num_slot_extents,
                            .host = plan.num_host_extents,
                            .summaries = plan.num_summary_extents,
                            .meta = plan.num_meta_segments};
  const PoolCounts resident = impl.footprint.Resident(prompt_tokens, reserve_tokens, num_sequences);
  const PoolCounts tiered =
      impl.footprint.Tiered(prompt_tokens, reserve_tokens, num_sequences, budget_pages);
  if (impl.may_stay && total.Covers(resident)) return absl::OkStatus();
  if (impl.may_tier && total.Covers(tiered)) return absl::OkStatus();
  if (!impl.may_stay && plan.num_host_extents == 0) {
    return ResourceExhausted(
        "memory.placement tiered needs a host pool; set memory.host_pool to at least %s",
        FormatBytes(tiered.host * plan.geometry.extent_bytes()));
  }
  // What would be enough, by the way that is short of less HBM.
  const PoolCounts& need = impl.may_tier ? tiered : resident;
  const int64_t host_need = std::max({need.host, need.meta, int64_t{plan.num_host_extents}});
  const int64_t hbm_bytes =
      HbmBytes(plan.geometry, std::max(need.slots, int64_t{plan.num_slot_extents}), host_need);
  std::string advice = absl::StrFormat("raise memory.hbm_budget to %s", FormatBytes(hbm_bytes));
  if (host_need > plan.num_host_extents) {
    advice = absl::StrFormat("raise memory.host_pool to %s (and with it memory.hbm_budget to %s)",
                             FormatBytes(host_need * plan.geometry.extent_bytes()),
                             FormatBytes(hbm_bytes));
  }
  return ResourceExhausted(
      "%d sequence(s) of %d tokens can never run: they need %s of HBM pages (there are %s) and %s "
      "of host pages (there are %s); %s",
      num_sequences, reserve_tokens, FormatBytes(need.slots * plan.geometry.extent_bytes()),
      FormatBytes(plan.slot_bytes), FormatBytes(need.host * plan.geometry.extent_bytes()),
      FormatBytes(plan.host_bytes), advice);
}

std::optional<std::vector<RowId>> KvCacheManager::Admit(int64_t prompt_tokens,
                                                        int64_t reserve_tokens,
                                                        int32_t num_sequences,
                                                        int32_t budget_pages) {
  Impl& impl = *impl_;
  SPIN_CHECK(prompt_tokens >= 1 && prompt_tokens <= reserve_tokens);
  SPIN_CHECK_LE(reserve_tokens, int64_t{impl.options.max_model_len});
  SPIN_CHECK_GE(num_sequences, 1);
  SPIN_CHECK_LE(budget_pages, impl.max_budget_pages());
  if (num_sequences > impl.table.num_free_rows()) {
    impl.room.OnRefused({});  // not for lack of memory
    return std::nullopt;
  }
  const PoolCounts resident = impl.footprint.Resident(prompt_tokens, reserve_tokens, num_sequences);
  const PoolCounts tiered =
      impl.footprint.Tiered(prompt_tokens, reserve_tokens, num_sequences, budget_pages);
  const Placement placement = impl.room.Place(resident, tiered);
  if (placement == Placement::kNone) {
    impl.room.OnRefused(impl.may_tier ? tiered : resident);
    return std::nullopt;
  }
  impl.room.Claim(placement == Placement::kTiered ? tiered.slots : resident.slots);
  impl.room.OnAdmitted(tiered);

  std::vector<RowId> rows;
  rows.reserve(static_cast<size_t>(num_sequences));
  for (int32_t i = 0; i < num_sequences; ++i) rows.push_back(RowId{impl.table.OpenRow()});
  const auto shared =
      static_cast<int32_t>(impl.options.plan.geometry.SettledExtents(prompt_tokens));
  if (num_sequences > 1 && shared > 0) impl.table.FormGroup(rows, shared);
  for (const RowId id : rows) {
    Row& row = impl.table.row(id.value);
    if (id != rows.front()) row.state = RowState::kForked;
    row.prompt_tokens = prompt_tokens;
    row.reserved_tokens = reserve_tokens;
    row.budget_pages = budget_pages;
    impl.table.SetPlacement(id.value, placement);
    impl.GrantRow(id.value, id == rows.front() ? 0 : shared, rows.front().value);
  }
  return rows;
}

void KvCacheManager::FinishPrefill(std::span<const RowId> rows) {
  Impl& impl = *impl_;
  SPIN_CHECK(!rows.empty());
  const KvGeometry& geometry = impl.table.geometry();
  const int32_t first = rows.front().value;
  const int64_t prompt = impl.Live(rows.front()).prompt_tokens;
  const bool tiered = impl.Live(rows.front()).placement == Placement::kTiered;
  // The extents of the prompt that each row has for itself: those that may still change.
  const auto begin = static_cast<int32_t>(impl.table.geometry().SettledExtents(prompt));
  const int32_t end = impl.footprint.Extents(prompt);
  const auto copy = [&](TableCommandKind command, PoolKind kind, int32_t r, int32_t layer) {
    for (int32_t i = begin; i < end; ++i) {
      impl.table.Emit(command, r, layer, impl.table.extent(kind, r, layer, i),
                      impl.table.extent(kind, first, layer, i));
    }
  };
  for (const RowId id : rows) {
    Row& row = impl.Live(id);
    SPIN_CHECK(row.state == (id.value == first ? RowState::kPrefill : RowState::kForked));
    SPIN_CHECK(row.prompt_tokens == prompt && row.group == impl.Live(rows.front()).group);
    row.state = RowState::kReady;
    row.length = prompt;
    if (id.value == first) continue;
    for (int32_t layer = 0; layer < geometry.num_layers; ++layer) {
      if (geometry.key_rank > 0) {
        impl.table.Emit(TableCommandKind::kCopyKeyBasis, id.value, layer,
                        geometry.BasisIndex(id.value, layer), geometry.BasisIndex(first, layer));
      }
      if (tiered) {
        copy(TableCommandKind::kCopyHostExtent, PoolKind::kHost, id.value, layer);
      } else {
        copy(TableCommandKind::kCopySlotExtent, PoolKind::kSlot, id.value, layer);
      }
      if (impl.table.has_summaries()) {
        copy(TableCommandKind::kCopySummaryExtent, PoolKind::kSummary, id.value, layer);
      }
    }
  }
}

void KvCacheManager::Advance(std::span<const RowId> rows) {
  for (const RowId id : rows) {
    Row& row = impl_->Live(id);
    SPIN_CHECK(row.state == RowState::kReady);
    SPIN_CHECK_LT(row.length, row.reserved_tokens);
    ++row.length;
  }
}

int64_t KvCacheManager::reserved_tokens(RowId row) const {
  return impl_->Live(row).reserved_tokens;
}

int64_t KvCacheManager::length(RowId row) const {
  return impl_->Live(row).length;
}

Placement KvCacheManager::placement(RowId row) const {
  return impl_->Live(row).placement;
}

StepReads KvCacheManager::ReadsOf(int64_t length, int32_t budget_pages) const {
  return impl_->traffic.Reads(length, budget_pages);
}

CacheWrites KvCacheManager::WritesOf(RowId id, int64_t from, int64_t to) const {
  const Row& row = impl_->Live(id);
  return impl_->traffic.Writes({.from = from,
                                .to = to,
                                .prefill_tokens = row.prompt_tokens,
                                .tiered = row.placement == Placement::kTiered});
}

const KvGeometry& KvCacheManager::geometry() const {
  return impl_->footprint.geometry();
}

bool KvCacheManager::Grow(RowId id, int64_t reserve_tokens) {
  Impl& impl = *impl_;
  Row& row = impl.Live(id);
  SPIN_CHECK(row.state == RowState::kReady);
  SPIN_CHECK_LE(reserve_tokens, int64_t{impl.options.max_model_len});
  if (reserve_tokens <= row.reserved_tokens) return true;
  // A row that is being demoted takes what is free; nobody is demoted for it.
  if (row.demotion == 0) {
    const bool tiered = row.placement == Placement::kTiered;
    impl.room.Make(impl.GrowthNeed(row, reserve_tokens), tiered ? kAbsent : id.value,
                   reserve_tokens);
  }
  // Counted anew: the row itself may have become Tiered.
  const PoolCounts need = impl.GrowthNeed(row, reserve_tokens);
  if (!impl.room.Has(need)) {
    impl.room.OnRefused(need);
    return false;
  }
  row.reserved_tokens = reserve_tokens;
  impl.room.Claim(impl.MissingSlots(id.value), id.value);
  impl.GrantRow(id.value, 0, id.value);
  return true;
}

void KvCacheManager::Suspend(RowId id) {
  Impl& impl = *impl_;
  Row& row = impl.Live(id);
  SPIN_CHECK(row.state == RowState::kReady && row.placement == Placement::kTiered);
  row.state = RowState::kSuspended;
  for (int32_t layer = 0; layer < impl.table.geometry().num_layers; ++layer) {
    impl.table.SetNumSlots(id.value, layer, 0);  // before the slots go: it clears their owners
    impl.table.Unmap(PoolKind::kSlot, id.value, layer, 0);
    impl.table.ClearMeta(id.value, layer);
  }
}

bool KvCacheManager::Resume(RowId id) {
  Impl& impl = *impl_;
  Row& row = impl.Live(id);
  SPIN_CHECK(row.state == RowState::kSuspended);
  PoolCounts need;
  need.slots = impl.footprint.AllTieredSlotExtents(row.reserved_tokens, row.budget_pages);
  impl.room.Make(need);
  if (!impl.room.Has(need)) {
    impl.room.OnRefused(need);
    return false;
  }
  impl.room.Claim(need.slots);
  row.state = RowState::kReady;
  impl.GrantSlots(id.value);
  return true;
}

void KvCacheManager::Release(RowId id) {
  impl_->Live(id);
  impl_->table.CloseRow(id.value);
  impl_->room.FinishDemotions();  // its copies may have been the last that others waited for
}

std::span<const TableCommand> KvCacheManager::TakeCommands() {
  return impl_->table.TakeCommands();
}

std::span<const TableCommand> KvCacheManager::TakeSpills(int32_t max) {
  return impl_->table.TakeSpills(max);
}

void KvCacheManager::FinishSpills() {
  impl_->table.FinishSpills();
  impl_->room.FinishDemotions();
}

bool KvCacheManager::room_is_coming() const {
  return impl_->table.HasSpills();
}

bool KvCacheManager::short_of_slots_alone() const {
  return impl_->room.short_of_slots_alone();
}

void KvCacheManager::HandOutSlots(bool someone_waits) {
  impl_->room.HandOut(someone_waits);
}

KvUsage KvCacheManager::usage() const {
  const RowTable& table = impl_->table;
  KvUsage usage;
  const auto count = [&](PoolKind kind, int32_t& used, int32_t& total) {
    used = table.pool(kind).num_used();
    total = table.pool(kind).total();
  };
  count(PoolKind::kSlot, usage.slot_extents, usage.slot_extents_total);
  count(PoolKind::kHost, usage.host_extents, usage.host_extents_total);
  count(PoolKind::kSummary, usage.summary_extents, usage.summary_extents_total);
  count(PoolKind::kMeta, usage.meta_segments, usage.meta_segments_total);
  usage.fraction = impl_->room.Fraction();
  usage.demotions = impl_->room.demotions();
  usage.spilled_bytes = table.spilled_extents() * table.geometry().extent_bytes();
  usage.buffer_extents = impl_->room.buffers().extents();
  usage.handed_out_extents = impl_->room.buffers().handed_out();
  usage.reclaimed_extents = impl_->room.buffers().reclaimed();
  for (int32_t r = 0; r < table.num_rows(); ++r) {
    const Row& row = table.row(r);
    if (row.state == RowState::kFree) continue;
    if (row.state == RowState::kSuspended) {
      ++usage.suspended_rows;
      usage.suspended_tokens += row.length;
    } else if (row.placement == Placement::kTiered) {
      ++usage.tiered_rows;
      usage.tiered_tokens += row.length;
      const int64_t mandatory =
          impl_->footprint.MandatorySlots(row.reserved_tokens, row.budget_pages);
      usage.tiered_slots.mandatory += mandatory;
      usage.tiered_slots.buffering += impl_->GrantedSlots(r) - mandatory;
    } else {
      ++usage.resident_rows;
      usage.resident_tokens += row.length;
    }
  }
  return usage;
}

void KvCacheManager::CheckInvariants() const {
  impl_->table.CheckInvariants(impl_->footprint);
}

}  // namespace spin
