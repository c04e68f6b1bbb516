// Continuous batching: which prompts are prefilled together, which rows decode, who gives way when
// room is short.
//
// It keeps the queue, the active prefill batch, the running and the suspended sequences, and asks
// the KvCacheManager in counts. Plan is one pass's decisions, in this order:
//
//   grow     each running row that is full grows, best first; room comes from the worst
//            (schedule_policy.h)
//   resume   suspended rows, best first
//   admit    when no prefill batch is active: the queue in order, into one batch
//   decode   the rows that still run and whose next token counts
//   lend     slots that are left go to Tiered rows as buffers
//
// Whoever finds no room while demotions make some waits for them, and nobody behind it goes ahead.
//
// Invariants: running and suspended are ordered best first, the queue by AdmitBefore; running +
// prefilling sequences are at most max_num_seqs; a sequence is in exactly the container that its
// state names.
//
// Deterministic: only containers with an order decide. Engine thread only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine_options.h"
#include "engine/schedule_policy.h"
#include "engine/scheduled_batch.h"
#include "engine/sequence.h"
#include "memory/kv_cache_manager.h"
#include "models/executor.h"

namespace spin {

class Scheduler {
 public:
  // `memory` outlives the scheduler.
  Scheduler(const EngineOptions& options, const ExecutorLimits& limits, KvCacheManager* memory);

  // The most sequences that one request may have.
  static int32_t MaxSequences(const EngineOptions& options, const ExecutorLimits& limits);

  // A new request enters the queue.
  void Enqueue(LiveRequest* request);

  // Decides one pass; the result is valid until the next call.
  const ScheduledBatch& Plan(int64_t now_ns);

  // The active prefill batch; empty when there is none.
  std::span<const PrefillUnit> prefill() const { return prefill_; }
  // Every request of the active batch has been cancelled.
  bool PrefillAbandoned() const;
  // The batch has been enqueued to its end: its sequences run; rows of cancelled ones are given
  // back.
  void FinishPrefill();
  // The batch was dropped: all rows are given back. REQUIRES: PrefillAbandoned.
  void DropPrefill();

  // Takes a sequence out wherever it is, gives its memory back and moves it to kFinished. Rows of
  // an active prefill batch are kept until it ends.
  void Finish(Sequence& sequence);

  int32_t num_running() const;    // decoding or prefilling
  int32_t num_waiting() const;    // new requests
  int32_t num_preempted() const;  // sequences, suspended ones included
  int64_t preemptions() const { return preemptions_; }

  void CheckInvariants() const;

 private:
  // An entry of the queue: a new request, or one preempted sequence.
  struct Waiting {
    LiveRequest* request = nullptr;
    Sequence* sequence = nullptr;  // null: all of the request's
    WaitingFacts facts;
  };
  enum class Admission { kAdmitted, kBlocked, kRemoved };

  // scheduler_room.cc: growth and preemption.
  bool IsBetter(const Sequence& a, const Sequence& b) const;
  void InsertOrdered(std::vector<Sequence*>& list, Sequence* sequence);
  void GrowRunning();
  bool GrowOne(Sequence& sequence);
  void ResumeSuspended();
  void Preempt(Sequence& victim);
  void Requeue(Sequence& sequence);
  Sequence* Worst() const;
  Sequence* NextVictim() const;
  bool SomeoneWaits() const;
  bool OnlyHolder(const Sequence& sequence) const;
  int64_t GrowthTarget(const Sequence& sequence) const;

  // scheduler.cc: the queue and admission.
  void AdmitWaiting(int64_t now_us);
  Admission TryAdmit(const Waiting& waiting);
  std::optional<std::vector<RowId>> AdmitRows(const Waiting& waiting, int64_t tokens, int32_t n);
  bool MakeSeats(const Waiting& waiting, int32_t n);
  bool HeldBack(const Waiting& waiting) const;
  bool PreemptFor(const Waiting& waiting);
  void StartPrefill(const Waiting& waiting, const std::vector<RowId>& rows);
  void Insert(const Waiting& waiting);
  void ReleaseRows(const PrefillUnit& unit);
  void CollectDecodeRows();
  int32_t prefilling() const;

  const EngineOptions options_;
  const int32_t max_sequences_;
  const int64_t max_batch_tokens_;
  KvCacheManager* const memory_;

  std::vector<Waiting> waiting_;      // by AdmitBefore
  std::vector<Waiting> requeued_;     // preempted in this pass; join the queue at its end
  std::vector<PrefillUnit> prefill_;  // the active batch
  int64_t prefill_tokens_ = 0;        // tokens of it
  bool awaits_room_ = false;          // a running or suspended sequence does, in this pass
  std::vector<Sequence*> running_;    // best first
  std::vector<Sequence*> suspended_;  // best first
  ScheduledBatch batch_;
  uint64_t next_admission_ = 1;
  int64_t preemptions_ = 0;
};

}  // namespace spin
