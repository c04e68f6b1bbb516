// Executor: runs the model for the engine. The engine thinks in rows, counts and tokens; the executor owns the
// device.
//
// Everything is enqueued in order and runs later; the engine stays one pass ahead: it submits pass t + 1 before it
// collects pass t. Within a pass the order is: table commands, prefill tiles, one decode step. The copies of Spill run
// beside that. Engine thread only.
//
// The token that a row sampled feeds its next decode step on the device; the host learns it from Collect, one pass
// late.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"
#include "kernels/params.h"

namespace spin {

// One sequence to prefill. With several rows (n > 1) rows[0] holds the KV and every row samples a first token.
struct PrefillItem {
  std::vector<RowId> rows;
  std::vector<int32_t> tokens;  // prompt; after a preemption prompt + what was generated
  int32_t num_prompt_logprobs =
      -1;              // -1: none; else 0..kMaxLogprobs alternatives for tokens 1.. of the prompt
  bool sample = true;  // false: prompt log-probabilities only (echo with max_tokens 0)
};

struct ExecutorLimits {
  int32_t max_rows = 0;   // rows of the tables
  int32_t max_batch = 0;  // rows of one decode step
  int32_t max_prefill_tokens =
      0;  // of one prefill batch; one sequence may always have max_model_len
  int32_t max_model_len = 0;
  int32_t vocab_size = 0;
  int32_t page_tokens = 0;
  int32_t max_spills = 1;  // extents of one Spill
};

// What one pass produced. The spans are valid until the next Collect.
struct PassResult {
  struct Sampled {
    RowId row;
    const SampledToken* token = nullptr;
  };
  std::span<const Sampled> tokens;  // prefilled rows in order, then decoded rows in order
  // Prompt log-probabilities of a finished prefill: item i of the batch has entries for its tokens 1..; empty
  // otherwise.
  std::span<const std::vector<SampledToken>> prompt_logprobs;
  // What Lookup and Select have counted of each row ([max_rows], since start, whoever held the row) up to the end of
  // this pass.
  std::span<const RetrieveCounters> counters;
  int64_t prefill_ns = 0;  // device time of the prefill tiles of this pass
  int64_t decode_ns = 0;   // of the decode step
};

class Executor {
 public:
  virtual ~Executor() = default;

  virtual const ExecutorLimits& limits() const = 0;

  // Table changes, in order, before everything enqueued later.
  virtual void ApplyTables(std::span<const TableCommand> commands) = 0;

  // Copies extents to the host in the background (kSpillExtent commands, at most limits().max_spills), behind
  // everything enqueued so far; what is enqueued later does not wait for them. Belongs to no pass: it needs no Submit.
  // REQUIRES: the copies before have passed.
  virtual void Spill(std::span<const TableCommand> copies) = 0;
  // The copies of the last Spill have passed (or there was none). Never waits.
  virtual bool SpillPassed() = 0;
  // Waits for them.
  virtual void AwaitSpill() = 0;

  // Sampling parameters of a row whose sequence starts (or starts again). `prompt` is used for penalties.
  virtual void StartRow(RowId row, const SamplingRow& sampling, std::span<const int32_t> prompt,
                        std::span<const int32_t> generated) = 0;

  // Behind StartRow, which leaves a row the server's budget: each stream of the row selects `pages` in a step, in all.
  // REQUIRES: more than the fixed ones, at most what the executor was made for.
  virtual void SetBudget(RowId row, int32_t pages) = 0;

  // Makes `items` the active prefill batch; at most once a pass. REQUIRES: none active; tokens within limits; rows
  // admitted.
  virtual void BeginPrefill(std::vector<PrefillItem> items) = 0;
  virtual bool prefill_active() const = 0;
  // Drops the active batch (all its requests were cancelled).
  virtual void CancelPrefill() = 0;
  // What the active batch still needs. Work is counted in tokens that go through a layer: what it takes is about in
  // proportion, whatever the length of prompts.
  virtual int64_t prefill_work_left() const = 0;
  // Enqueues tiles (one layer of up to a token tile each) of `max_work` in all, at least one. True: that was the last;
  // its rows hold their first token on the device and the pass's result will carry it.
  virtual bool EnqueuePrefill(int64_t max_work) = 0;

  // One decode step of `rows` (distinct, prefilled). At most once a pass.
  virtual void EnqueueDecode(std::span<const RowId> rows) = 0;

  // Closes the pass. REQUIRES: at most kMaxPassesInFlight - 1 submitted and not collected.
  static constexpr int kMaxPassesInFlight = 2;
  virtual void Submit() = 0;
  // Waits for the oldest submitted pass.
  virtual PassResult Collect() = 0;
};

}  // namespace spin
