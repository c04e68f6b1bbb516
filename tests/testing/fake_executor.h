// A deterministic device for tests of the engine: it runs no model, and holds the engine to the
// Executor's contract.
//
// The token that a row samples is a hash of everything the row has seen (prompt and generated
// tokens) and its seed: a pure function of the request. So whatever the schedule does, one output
// is right; a token fed to the wrong row, a lost or repeated step, a preemption that forgets a
// token change every token that follows.
//
// Aborts when: a row is used that the table commands do not hold; a row decodes before its prefill
// ended, or in the pass in which it ended; a batch has a row twice; a row decodes beyond its
// reservation; StartRow and the prefill disagree; calls of a pass come out of order; more than
// kMaxPassesInFlight passes are in flight; an extent is granted while a copy of Spill uses it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "common/random.h"
#include "memory/kv_cache_manager.h"
#include "models/executor.h"

namespace spin {

// The hash of a token sequence; FakeHistory(all) == FakeAppend(FakeHistory(all but the last),
// last).
uint64_t FakeHistory(std::span<const int32_t> tokens);
uint64_t FakeAppend(uint64_t history, int32_t token);

// What a step counts of a Tiered row that stores `length` tokens after it.
RetrieveCounters FakeCounts(int64_t length);

// The token that follows `history`, the `generated`-th (from 0) of its sequence.
int32_t FakeToken(uint64_t history, const SamplingRow& sampling, int64_t generated,
                  int32_t vocab_size);

class FakeExecutor final : public Executor {
 public:
  struct Options {
    ExecutorLimits limits;
    int32_t tile_tokens = 64;  // of a prefill tile
    int32_t num_layers = 2;
    int64_t tile_ns = 1'000'000;  // of a full one; an eighth of it whatever the tokens
    int64_t decode_ns = 500'000;  // of a step
    int64_t decode_row_ns = 10'000;
    int64_t collect_sleep_ns = 0;  // real time that Collect takes
    // The copies of a Spill pass at a random one of the next so many calls of SpillPassed.
    int32_t max_spill_polls = 1;
    int64_t spill_extent_ns = 200'000;  // of a copy that something waits for
  };

  // `memory` and `clock` outlive the executor. Collect moves the clock (if there is one) by the
  // pass's device time, AwaitSpill by that of the copies.
  FakeExecutor(const Options& options, const KvCacheManager* memory, FakeClock* clock);

  const ExecutorLimits& limits() const override { return options_.limits; }
  void ApplyTables(std::span<const TableCommand> commands) override;
  void Spill(std::span<const TableCommand> copies) override;
  bool SpillPassed() override;
  void AwaitSpill() override;
  void StartRow(RowId row, const SamplingRow& sampling, std::span<const int32_t> prompt,
                std::span<const int32_t> generated) override;
  void SetBudget(RowId row, int32_t pages) override;
  void BeginPrefill(std::vector<PrefillItem> items) override;
  bool prefill_active() const override { return !items_.empty(); }
  void CancelPrefill() override;
  int64_t prefill_work_left() const override { return work_left_; }
  bool EnqueuePrefill(int64_t max_work) override;
  void EnqueueDecode(std::span<const RowId> rows) override;
  void Submit() override;
  PassResult Collect() override;

  int64_t num_passes() const { return next_pass_; }
  int64_t num_prefills() const { return num_prefills_; }
  int64_t num_cancelled_prefills() const { return num_cancelled_prefills_; }
  int64_t decoded_rows() const { return decoded_rows_; }
  int64_t num_spills() const { return num_spills_; }
  // Rows that decoded while copies were under way.
  int64_t decoded_beside_spills() const { return decoded_beside_spills_; }
  // The longest that a decode step had to wait for copies: kSpillExtent commands and AwaitSpill since the step before.
  int64_t longest_spill_wait_ns() const { return longest_spill_wait_ns_; }
  int64_t held_rows() const;
  int32_t budget(RowId row) const { return rows_.at(static_cast<std::size_t>(row.value)).budget; }
  RetrieveCounters total_counts() const;  // of all rows
  // The longest prefill work of a pass with a decode step.
  int64_t longest_prefill_beside_decode_ns() const { return longest_prefill_beside_decode_ns_; }

 private:
  struct Row {
    bool held = false;  // by the table commands
    bool started = false;
    int32_t budget = 0;       // pages of its own
    int64_t ready_pass = -1;  // the pass in which its prefill ended
    SamplingRow sampling;
    uint64_t history = 0;  // of the tokens in the cache
    int64_t length = 0;    // tokens in the cache
    int32_t token = 0;     // sampled, not yet in the cache
    uint64_t started_with = 0;
    int64_t started_tokens = 0;
  };
  struct Pass {
    std::vector<RowId> rows;
    std::vector<SampledToken> tokens;
    std::vector<std::vector<SampledToken>> prompt_logprobs;
    int64_t prefill_ns = 0;
    int64_t decoded = 0;
    int64_t spill_ns = 0;  // of kSpillExtent commands
    bool has_prefill = false;
    bool has_decode = false;
    std::vector<RetrieveCounters> counters;  // of the rows, as of its end
  };

  Row& At(RowId row);
  void CheckNotSpilling(const TableCommand& command) const;
  void Sample(RowId id);
  int64_t TileTokens() const;
  void FinishPrefill();
  std::vector<SampledToken> ScorePrompt(const PrefillItem& item) const;

  const Options options_;
  const KvCacheManager* const memory_;
  FakeClock* const clock_;
  std::vector<Row> rows_;
  std::vector<RetrieveCounters> counters_;  // of the rows, since start
  std::vector<PrefillItem> items_;
  int64_t prefill_tokens_ = 0;  // of the active batch
  int64_t next_tile_ = 0;       // of all layers
  int64_t work_left_ = 0;
  Pass open_;  // being enqueued
  std::deque<Pass> submitted_;
  Pass collected_;  // what the last result points into
  std::vector<PassResult::Sampled> sampled_;
  int64_t next_pass_ = 0;
  int64_t num_prefills_ = 0;
  int64_t num_cancelled_prefills_ = 0;
  int64_t decoded_rows_ = 0;
  std::vector<TableCommand> spill_;  // under way
  int32_t spill_polls_left_ = 0;
  Random random_{1};
  int64_t num_spills_ = 0;
  int64_t decoded_beside_spills_ = 0;
  int64_t spill_wait_ns_ = 0;  // since the last decode step
  int64_t longest_spill_wait_ns_ = 0;
  int64_t longest_prefill_beside_decode_ns_ = 0;
};

}  // namespace spin
