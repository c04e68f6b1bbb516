// Two KvCacheManagers in step: one lends free slots to Tiered rows, the other never does. Lending must
// change nothing that can be had: whatever is asked of both, rows, placements, refusals and demotions
// are the same; only slot extents in buffers differ. Checks abort (SPIN_CHECK).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/check.h"
#include "common/ids.h"
#include "memory/kv_cache_manager.h"

namespace spin::sim {

// The calls of KvCacheManager; commands and counts are those of the one that lends.
class TwinManagers {
 public:
  explicit TwinManagers(const KvCacheOptions& options) : lends_(options), fixed_(Fixed(options)) {}

  std::optional<std::vector<RowId>> Admit(int64_t prompt_tokens, int64_t reserve_tokens,
                                          int32_t num_sequences, int32_t budget_pages) {
    auto rows = lends_.Admit(prompt_tokens, reserve_tokens, num_sequences, budget_pages);
    const auto same = fixed_.Admit(prompt_tokens, reserve_tokens, num_sequences, budget_pages);
    SPIN_CHECK(rows == same);
    return rows;
  }
  bool Grow(RowId row, int64_t reserve_tokens) {
    const bool grown = lends_.Grow(row, reserve_tokens);
    SPIN_CHECK_EQ(fixed_.Grow(row, reserve_tokens), grown);
    return grown;
  }
  bool Resume(RowId row) {
    const bool resumed = lends_.Resume(row);
    SPIN_CHECK_EQ(fixed_.Resume(row), resumed);
    return resumed;
  }
  void FinishPrefill(std::span<const RowId> rows) {
    lends_.FinishPrefill(rows);
    fixed_.FinishPrefill(rows);
  }
  void Advance(std::span<const RowId> rows) {
    lends_.Advance(rows);
    fixed_.Advance(rows);
  }
  void Suspend(RowId row) {
    lends_.Suspend(row);
    fixed_.Suspend(row);
  }
  void Release(RowId row) {
    lends_.Release(row);
    fixed_.Release(row);
  }
  void HandOutSlots(bool someone_waits) {
    lends_.HandOutSlots(someone_waits);
    fixed_.HandOutSlots(someone_waits);
  }
  std::span<const TableCommand> TakeCommands() {
    fixed_.TakeCommands();
    return lends_.TakeCommands();
  }
  std::span<const TableCommand> TakeSpills(int32_t max) {
    const auto copies = lends_.TakeSpills(max);
    SPIN_CHECK_EQ(fixed_.TakeSpills(max).size(), copies.size());
    return copies;
  }
  void FinishSpills() {
    lends_.FinishSpills();
    fixed_.FinishSpills();
  }

  absl::Status CheckFits(int64_t prompt_tokens, int64_t reserve_tokens, int32_t n,
                         int32_t budget_pages) const {
    return lends_.CheckFits(prompt_tokens, reserve_tokens, n, budget_pages);
  }
  int64_t ReservationTokens(int64_t prompt_tokens, std::optional<int64_t> max_tokens) const {
    return lends_.ReservationTokens(prompt_tokens, max_tokens);
  }
  int64_t reserved_tokens(RowId row) const { return lends_.reserved_tokens(row); }
  int64_t length(RowId row) const { return lends_.length(row); }
  Placement placement(RowId row) const {
    SPIN_CHECK(fixed_.placement(row) == lends_.placement(row));
    return lends_.placement(row);
  }
  bool room_is_coming() const { return lends_.room_is_coming(); }
  KvUsage usage() const { return lends_.usage(); }

  // Each is in order, and both hold the same but for buffers.
  void CheckInvariants() const {
    lends_.CheckInvariants();
    const KvUsage usage = lends_.usage(), same = fixed_.usage();
    SPIN_CHECK_EQ(usage.slot_extents - usage.buffer_extents, int64_t{same.slot_extents});
    SPIN_CHECK_EQ(usage.host_extents, same.host_extents);
    SPIN_CHECK_EQ(usage.summary_extents, same.summary_extents);
    SPIN_CHECK_EQ(usage.meta_segments, same.meta_segments);
    SPIN_CHECK_EQ(usage.resident_rows, same.resident_rows);
    SPIN_CHECK_EQ(usage.tiered_rows, same.tiered_rows);
    SPIN_CHECK_EQ(usage.suspended_rows, same.suspended_rows);
    SPIN_CHECK_EQ(usage.demotions, same.demotions);
    SPIN_CHECK_EQ(usage.fraction, same.fraction);
    SPIN_CHECK_EQ(same.handed_out_extents, 0);
    SPIN_CHECK_EQ(lends_.room_is_coming(), fixed_.room_is_coming());
  }

 private:
  static KvCacheOptions Fixed(KvCacheOptions options) {
    options.max_buffer_ratio = options.min_buffer_ratio;
    return options;
  }

  KvCacheManager lends_, fixed_;
};

}  // namespace spin::sim
