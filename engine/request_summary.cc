#include "engine/request_summary.h"

#include <algorithm>

namespace spin {

void RequestSummary::Merge(const RequestSummary& other) {
  queue_ns = std::max(queue_ns, other.queue_ns);
  prefill_ns = std::max(prefill_ns, other.prefill_ns);
  decode_ns = std::max(decode_ns, other.decode_ns);
  placement = std::max(placement, other.placement);
  demotions += other.demotions;
  context_tokens = std::max(context_tokens, other.context_tokens);
  steps += other.steps;
  attended_tokens += other.attended_tokens;
  retrieved += other.retrieved;
  fetched_bytes += other.fetched_bytes;
}

std::optional<double> RequestSummary::attended_tokens_a_step() const {
  if (steps == 0) return std::nullopt;
  return attended_tokens / static_cast<double>(steps);
}

std::optional<double> RequestSummary::hit_ratio() const {
  const uint64_t looked_up = retrieved.hits + retrieved.misses;
  if (looked_up == 0) return std::nullopt;
  return static_cast<double>(retrieved.hits) / static_cast<double>(looked_up);
}

void SequenceTally::OnPrefill(Placement now, const RetrieveCounters& row) {
  placement = now;
  seen = row;
}

void SequenceTally::OnStep(Placement now, const RetrieveCounters& row, const StepReads& reads) {
  if (placement == Placement::kResident && now == Placement::kTiered) ++demotions;
  placement = now;
  ++steps;
  attended_tokens += reads.attended_tokens;
  retrieved += row - seen;
  seen = row;
}

}  // namespace spin
