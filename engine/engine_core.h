// One pass of the engine, phase by phase, on one thread.
//
//   drain    submissions, cancellations
//   plan     demotions whose copies have passed; the scheduler's decisions
//   commit   table commands, copies of demotions, StartRow, BeginPrefill
//   launch   prefill tiles, then one decode step; Submit
//   collect  the pass before: tokens, stops
//   emit     outputs to the sinks
//   retire   requests that nothing refers to any more
//
// It is one pass ahead: pass t + 1 is submitted before pass t is collected. So a sequence that
// turns out to have stopped may have one more step in flight; that token is dropped, and its row is
// given back at once, because table commands run behind what is in flight.
//
// engine/README.md is the normative text.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "common/status.h"
#include "engine/engine_metrics.h"
#include "engine/engine_options.h"
#include "engine/inbox.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "memory/kv_cache_manager.h"
#include "models/executor.h"
#include "models/tokenizer/tokenizer.h"

namespace spin {

class EngineCore {
 public:
  // All outlive the core; `tokenizer` may be null.
  EngineCore(const EngineOptions& options, Executor* executor, KvCacheManager* memory,
             const Tokenizer* tokenizer, const Clock* clock, Inbox* inbox, EngineMetrics* metrics);

  // One pass. False: there was nothing to do and there is nothing to wait for but new input.
  bool Step();

  // Nothing is alive and nothing is in flight.
  bool idle() const {
    return requests_.empty() && passes_in_flight_ == 0 && !memory_->room_is_coming();
  }

  void CheckInvariants() const;

 private:
  // A sequence's place in a pass, and the row it had then.
  struct PassEntry {
    Sequence* sequence = nullptr;
    RowId row;
    bool sampled = true;     // false: prompt log-probabilities only
    bool prefilled = false;  // its prefill ends in this pass; else it decodes
  };
  // What a pass in flight will bring.
  struct PassRecord {
    std::vector<PassEntry> entries;       // in the order of PassResult::tokens
    std::vector<LiveRequest*> prefilled;  // items of the prefill batch that ends in this pass
    int64_t prefill_work = 0;
    int64_t prompt_tokens = 0;
    StepReads reads;     // of its decode step
    CacheWrites writes;  // of that, and of a prefill that ends in it
  };

  bool DrainInputs();
  void DropAbandonedPrefill();
  bool FinishSpills();
  bool Plan();
  void Commit();
  void Launch();
  bool Collect(bool launched);
  void Emit();
  void Retire();
  void Publish();

  void BeginPrefill();
  void LaunchPrefill(PassRecord& pass);
  void LaunchDecode(PassRecord& pass);
  void TakeResult(const PassRecord& pass, const PassResult& result, int64_t now_ns);
  void Tally(const PassEntry& entry, const PassResult& result) const;
  void TakePromptLogprobs(const PassRecord& pass, const PassResult& result);
  void TakeToken(Sequence& sequence, const SampledToken& token, int64_t now_ns);
  void MeasurePrefill(const PassRecord& pass, const PassResult& result);

  SequenceDelta& Touch(Sequence& sequence);
  void FinishWithLength(Sequence& sequence);
  void Abort(LiveRequest& request, FinishReason reason);
  void Fail(LiveRequest& request, const absl::Status& error, FinishReason reason);
  void End(LiveRequest& request, FinishReason reason);

  const EngineOptions options_;
  Executor* const executor_;
  KvCacheManager* const memory_;
  const Tokenizer* const tokenizer_;
  const Clock* const clock_;
  Inbox* const inbox_;
  EngineMetrics* const metrics_;
  const int64_t stall_budget_ns_;

  Scheduler scheduler_;
  std::map<RequestId, std::unique_ptr<LiveRequest>> requests_;
  std::vector<LiveRequest*> touched_;   // have output of this pass, in order
  std::vector<LiveRequest*> retiring_;  // ended, maybe still named by a pass in flight
  std::array<PassRecord, Executor::kMaxPassesInFlight> passes_;  // ring
  int oldest_pass_ = 0;
  int passes_in_flight_ = 0;
  const ScheduledBatch* batch_ = nullptr;  // of this pass
  double prefill_work_ns_ = 0;  // smoothed device time of a unit of prefill work; 0: not measured
  uint64_t spared_pages_ = 0;   // of all rows, up to the last collected pass
  InboxBatch inputs_;
  SamplingRow sampling_row_;  // 8 KiB: reused
};

}  // namespace spin
