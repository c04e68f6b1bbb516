// A request while the engine works on it, and its sequences: the mutable side of the immutable
// Request.
//
//   Waiting -----> Prefilling -----> Running <-----> Suspended
//                      ^                |                |
//                      |                v                |
//                      +----------- Preempted <----------+
//
// and from each of them to Finished: ended, cancelled, or failed. Suspended: a Tiered row that gave
// its slots back, until Resume. Preempted: holds nothing; prompt and generated tokens are prefilled
// again.
//
// Invariants (Engine::CheckInvariants): a row is held in Prefilling, Running and Suspended, and in
// Finished while the sequence's prefill batch runs on (it was cancelled); in Running the KV holds
// prompt + launched tokens - 1.
//
// Engine thread only. Owned by EngineCore; a LiveRequest lives until no pass in flight names it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/ids.h"
#include "engine/request.h"
#include "engine/stop_checker.h"
#include "models/tokenizer/tokenizer.h"

namespace spin {

inline constexpr RowId kNoRow{-1};

enum class SequenceState { kWaiting, kPrefilling, kRunning, kSuspended, kPreempted, kFinished };

struct LiveRequest;

struct Sequence {
  Sequence(LiveRequest* owner, int32_t index_of_n, StopChecker checker)
      : request(owner), index(index_of_n), stop(std::move(checker)) {}

  // Aborts when the diagram has no such edge.
  void MoveTo(SequenceState next);

  // Tokens sampled or about to be: generated ones and those in flight.
  int32_t launched() const { return static_cast<int32_t>(generated.size()) + in_flight; }
  // Another step would produce a token that counts.
  bool wants_step() const { return launched() < stop.max_tokens(); }

  LiveRequest* request;
  int32_t index;  // 0..n-1
  SequenceState state = SequenceState::kWaiting;
  RowId row = kNoRow;
  int32_t in_flight = 0;  // tokens enqueued and not collected
  bool stalled = false;   // this pass: no room to grow, nobody to take it from
  std::vector<int32_t> generated;
  StopChecker stop;
  int64_t last_token_ns = 0;
  SequenceTally tally;  // kept where the request wants a summary
};

struct LiveRequest {
  LiveRequest(Request request_in, const ResolvedRequest& resolved, int64_t arrival,
              const Tokenizer* tokenizer, std::span<const int32_t> eos_token_ids,
              uint64_t engine_seed);
  LiveRequest(const LiveRequest&) = delete;
  LiveRequest& operator=(const LiveRequest&) = delete;

  int64_t prompt_tokens() const { return static_cast<int64_t>(request.prompt.size()); }
  bool scores_only() const { return max_tokens == 0; }  // prompt log-probabilities, nothing sampled
  bool finished() const { return unfinished == 0; }
  // No row is held and no pass in flight names a sequence.
  bool unreferenced() const;
  // What it was, now that it has ended.
  RequestSummary Summary(int64_t now_ns, const KvGeometry& geometry) const;
  // The delta of `index` in the output that is being collected.
  SequenceDelta& DeltaOf(int32_t index);

  const Request request;
  const int32_t max_tokens;    // resolved; prompt + max_tokens <= max_model_len
  const int32_t budget_pages;  // of its rows; 0: the server's
  const int64_t arrival_ns;
  const uint64_t seed;
  std::vector<Sequence> sequences;  // [n], fixed
  int32_t unfinished;               // sequences not in kFinished
  uint64_t admission = 0;           // order of the first admission, from 1; 0: never admitted

  bool queued = true;           // never admitted: it counts in the queue
  bool reached_length = false;  // a sequence ended by its length
  RequestOutput pending;        // collected in this pass, not yet emitted
  bool has_pending = false;
  int64_t admitted_ns = 0;
  int64_t first_token_ns = 0;
};

}  // namespace spin
