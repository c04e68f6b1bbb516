// What a request cost and what its attention was served from: the answer to Request::wants_summary.
//
// The engine keeps a tally of each sequence of such a request, fed with every token it takes, and sums them up when the
// request ends.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/params.h"
#include "memory/kv_cache_manager.h"

namespace spin {

struct RequestSummary {
  // From arrival to admission, from there to the first token, from there to the end.
  int64_t queue_ns = 0;
  int64_t prefill_ns = 0;
  int64_t decode_ns = 0;
  Placement placement =
      Placement::kNone;   // at the end; Tiered when any sequence was; kNone: it never held memory
  int32_t demotions = 0;  // of its sequences, from Resident to Tiered
  int64_t context_tokens = 0;  // prompt and generated ones of its longest sequence
  int64_t steps = 0;           // decode steps whose token counted, of all sequences
  double attended_tokens =
      0;  // by a KV head, mean over heads and layers, summed over the steps; computed
  RetrieveCounters retrieved;  // in those steps; all but `spared` zero while Resident
  int64_t fetched_bytes = 0;   // from the host

  // Adds another request of one answer: counts add up, of times and lengths the longer one.
  void Merge(const RequestSummary& other);
  // Tokens that a KV head attended to, a step. Nothing without a step.
  std::optional<double> attended_tokens_a_step() const;
  // Of the selected pages, those that were in HBM. Nothing where none was looked up.
  std::optional<double> hit_ratio() const;
};

// Of one sequence. Counters are a row's and go on when the row changes hands: only differences count.
struct SequenceTally {
  // A prefill has ended on a row, the first one or one after a preemption.
  void OnPrefill(Placement now, const RetrieveCounters& row);
  // A step's token was taken.
  void OnStep(Placement now, const RetrieveCounters& row, const StepReads& reads);

  Placement placement = Placement::kNone;  // when last seen
  int32_t demotions = 0;
  int64_t steps = 0;
  int64_t attended_tokens = 0;  // summed over layers and steps, what was spared among them
  RetrieveCounters retrieved;
  RetrieveCounters seen;  // of its row, up to the last token
};

}  // namespace spin
