#include "memory/traffic.h"

#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/params.h"

namespace spin {

StepReads& StepReads::operator+=(const StepReads& other) {
  attended_tokens += other.attended_tokens;
  attention_bytes += other.attention_bytes;
  summary_bytes += other.summary_bytes;
  estimate_bytes += other.estimate_bytes;
  return *this;
}

CacheWrites& CacheWrites::operator+=(const CacheWrites& other) {
  index_bytes += other.index_bytes;
  offload_bytes += other.offload_bytes;
  return *this;
}

Traffic::Traffic(const KvGeometry& geometry, std::span<const LayerDemand> layers)
    : geometry_(geometry), groups_(GroupLayers(layers)) {
  SPIN_CHECK_EQ(static_cast<int32_t>(layers.size()), geometry_.num_layers);
}

// Of one stream; attention_bytes is left to the caller.
StepReads Traffic::StreamReads(const LayerDemand& demand, int64_t tokens,
                               int32_t budget_pages) const {
  const SummaryUse& use = demand.summaries;
  const int64_t element = SizeOf(geometry_.dtype);
  StepReads reads{.attended_tokens = tokens};
  if (demand.whole_context) return reads;
  if (use.min_retrieve == 0) {
    const auto pages = static_cast<int32_t>(CeilDiv(tokens, geometry_.page_tokens));
    const int64_t left_out = pages - demand.Mandatory(pages, budget_pages);
    reads.attended_tokens = tokens - left_out * geometry_.page_tokens;
    reads.summary_bytes =
        int64_t{std::max(pages - use.unscored_last, 0)} * use.scored_elements * element;
    return reads;
  }
  const int64_t extents = geometry_.SettledExtents(tokens);
  const auto clusters = static_cast<int32_t>(extents * geometry_.extent_partitions());
  if (clusters == 0) return reads;
  const ClusterBudget budget = {.retrieve_permille = use.retrieve_permille,
                                .estimate_permille = use.estimate_permille,
                                .min_retrieve = use.min_retrieve};
  const int64_t sink = geometry_.page_tokens;  // in no cluster, as what is not settled
  const int64_t clustered = extents * kExtentTokens - sink;
  reads.attended_tokens = tokens - clustered + budget.Retrieve(clusters) * clustered / clusters;
  reads.summary_bytes = int64_t{clusters} * use.scored_elements * element;
  reads.estimate_bytes = int64_t{budget.Estimate(clusters)} * 2 * geometry_.head_dim * element;
  return reads;
}

StepReads Traffic::Reads(int64_t tokens, int32_t budget_pages) const {
  SPIN_CHECK_GE(tokens, 1);
  StepReads reads;
  for (const LayerGroup& group : groups_) {
    const StepReads stream = StreamReads(group.demand, tokens, budget_pages);
    const int64_t streams = group.num_layers * geometry_.num_kv_heads;
    reads.attended_tokens += group.num_layers * stream.attended_tokens;
    reads.summary_bytes += streams * stream.summary_bytes;
    reads.estimate_bytes += streams * stream.estimate_bytes;
  }
  reads.attention_bytes = reads.attended_tokens * geometry_.num_kv_heads * geometry_.page_bytes() /
                          geometry_.page_tokens;
  return reads;
}

// Of one stream: those that `stored` makes or changes.
int64_t Traffic::NewSummaries(const LayerDemand& demand, const StoredTokens& stored) const {
  const int32_t page = geometry_.page_tokens;
  switch (demand.summaries.cover) {
    case SummaryCover::kBegunPages:
      return CeilDiv(stored.to, page) - stored.from / page;
    case SummaryCover::kCompletePages:
      return stored.to / page - stored.from / page;
    case SummaryCover::kSettledExtents:
      return (geometry_.SettledExtents(stored.to) - geometry_.SettledExtents(stored.from)) *
             geometry_.extent_partitions();
  }
  return 0;
}

CacheWrites Traffic::Writes(const StoredTokens& stored) const {
  SPIN_CHECK(stored.from >= 0 && stored.from <= stored.to);
  const KvGeometry& g = geometry_;
  // Short prompts have no factor (KeyFactorPrefillParams).
  const bool factors = g.key_rank > 0 && stored.prefill_tokens >= g.key_width();
  const int64_t summary_bytes = g.summary_bytes() - (factors ? 0 : g.key_piece() * SizeOf(g.dtype));
  CacheWrites writes;
  for (const LayerGroup& group : groups_) {
    writes.index_bytes +=
        group.num_layers * g.num_kv_heads * summary_bytes * NewSummaries(group.demand, stored);
  }
  if (factors && stored.from == 0) writes.index_bytes += g.num_layers * g.key_basis_bytes();
  if (!stored.tiered) return writes;
  int64_t tokens = stored.to - stored.from;
  // A step that settles an extent of clusters stores its tokens again, in another order.
  if (g.unsettled_tokens > 0 && stored.from > 0) {
    tokens += (g.SettledExtents(stored.to) - g.SettledExtents(stored.from)) * kExtentTokens;
  }
  writes.offload_bytes = g.num_layers * tokens * (g.extent_bytes() / kExtentTokens);
  return writes;
}

}  // namespace spin
