#include "engine/sequence.h"

#include <algorithm>

#include "common/check.h"
#include "engine/sampling_row.h"

namespace spin {
namespace {

bool HasEdge(SequenceState from, SequenceState to) {
  using enum SequenceState;
  switch (to) {
    case kWaiting:
      return false;
    case kPrefilling:
      return from == kWaiting || from == kPreempted;
    case kRunning:
      return from == kPrefilling || from == kSuspended;
    case kSuspended:
      return from == kRunning;
    case kPreempted:
      return from == kRunning || from == kSuspended;
    case kFinished:
      return from != kFinished;
  }
  return false;
}

}  // namespace

void Sequence::MoveTo(SequenceState next) {
  SPIN_CHECK(HasEdge(state, next));
  state = next;
  if (next == SequenceState::kFinished) {
    --request->unfinished;
    SPIN_CHECK_GE(request->unfinished, 0);
  }
}

LiveRequest::LiveRequest(Request request_in, const ResolvedRequest& resolved, int64_t arrival,
                         const Tokenizer* tokenizer, std::span<const int32_t> eos_token_ids,
                         uint64_t engine_seed)
    : request(std::move(request_in)),
      max_tokens(resolved.max_tokens),
      budget_pages(resolved.budget_pages),
      arrival_ns(arrival),
      seed(RequestSeed(request.sampling, request.id, engine_seed)),
      unfinished(request.sampling.n) {
  sequences.reserve(static_cast<std::size_t>(request.sampling.n));
  for (int32_t i = 0; i < request.sampling.n; ++i) {
    sequences.emplace_back(this, i,
                           StopChecker(tokenizer, request.sampling, eos_token_ids, max_tokens));
  }
}

bool LiveRequest::unreferenced() const {
  return std::all_of(sequences.begin(), sequences.end(),
                     [](const Sequence& s) { return s.row == kNoRow && s.in_flight == 0; });
}

RequestSummary LiveRequest::Summary(int64_t now_ns, const KvGeometry& geometry) const {
  RequestSummary summary;
  // Where only the prompt is scored no token comes: the prefill lasts until the end.
  const int64_t prefilled_ns = first_token_ns == 0 ? now_ns : first_token_ns;
  summary.queue_ns = admitted_ns - arrival_ns;
  summary.prefill_ns = prefilled_ns - admitted_ns;
  summary.decode_ns = now_ns - prefilled_ns;
  for (const Sequence& sequence : sequences) {
    const SequenceTally& tally = sequence.tally;
    summary.placement = std::max(summary.placement, tally.placement);
    summary.demotions += tally.demotions;
    summary.context_tokens = std::max(
        summary.context_tokens, prompt_tokens() + static_cast<int64_t>(sequence.generated.size()));
    summary.steps += tally.steps;
    summary.attended_tokens += static_cast<double>(tally.attended_tokens) / geometry.num_layers;
    summary.retrieved += tally.retrieved;
  }
  summary.attended_tokens -= static_cast<double>(summary.retrieved.spared) * geometry.page_tokens /
                             (geometry.num_layers * geometry.num_kv_heads);
  summary.fetched_bytes =
      static_cast<int64_t>(summary.retrieved.Bytes(static_cast<uint64_t>(geometry.page_bytes())));
  return summary;
}

SequenceDelta& LiveRequest::DeltaOf(int32_t index) {
  has_pending = true;
  for (SequenceDelta& delta : pending.deltas) {
    if (delta.index == index) return delta;
  }
  pending.deltas.emplace_back();
  pending.deltas.back().index = index;
  return pending.deltas.back();
}

}  // namespace spin
