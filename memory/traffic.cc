#include "memory/traffic.h"

#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/params.h"

namespace spin {
namespace {

// Of a cluster's record: mean key, mean value and ClusterRun. What is behind them is padding.
int64_t ClusterBytes(const KvGeometry& g) {
  return 2 * int64_t{g.head_dim} * SizeOf(g.dtype) + int64_t{sizeof(ClusterRun)};
}

}  // namespace

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
  reads.summary_bytes = int64_t{clusters} * use.scored_elements * element;
  if (budget_pages > 0) return reads;  // it covers the row: RowBudgets
  const ClusterBudget budget = {.retrieve_permille = use.retrieve_permille,
                                .estimate_permille = use.estimate_permille,
                                .min_retrieve = use.min_retrieve};
  const int64_t sink = geometry_.page_tokens;  // in no cluster, as what is not settled
  const int64_t clustered = extents * kExtentTokens - sink;
  reads.attended_tokens = tokens - clustered + budget.Retrieve(clusters) * clustered / clusters;
  reads.estimate_bytes = budget.Estimate(clusters) * ClusterBytes(geometry_);
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

// Short prompts have no factors (KeyFactorPrefillParams).
bool Traffic::HasFactors(const StoredTokens& stored) const {
  return geometry_.key_rank > 0 && stored.prefill_tokens >= geometry_.key_width();
}

// Of one stream: the summaries that `stored` makes or changes.
int64_t Traffic::SummaryBytes(const LayerDemand& demand, const StoredTokens& stored) const {
  const KvGeometry& g = geometry_;
  const int64_t bytes =
      g.summary_bytes() - (HasFactors(stored) ? 0 : g.key_piece() * SizeOf(g.dtype));
  switch (demand.summaries.cover) {
    case SummaryCover::kBegunPages:
      return (CeilDiv(stored.to, g.page_tokens) - stored.from / g.page_tokens) * bytes;
    case SummaryCover::kCompletePages:
      return (stored.to / g.page_tokens - stored.from / g.page_tokens) * bytes;
    case SummaryCover::kSettledExtents:
      return NewlySettled(stored) * g.extent_partitions() * ClusterBytes(g);
  }
  return 0;
}

int64_t Traffic::NewlySettled(const StoredTokens& stored) const {
  return geometry_.SettledExtents(stored.to) - geometry_.SettledExtents(stored.from);
}

CacheWrites Traffic::Writes(const StoredTokens& stored) const {
  SPIN_CHECK(stored.from >= 0 && stored.from <= stored.to);
  const KvGeometry& g = geometry_;
  CacheWrites writes;
  for (const LayerGroup& group : groups_) {
    writes.index_bytes += group.num_layers * g.num_kv_heads * SummaryBytes(group.demand, stored);
  }
  if (stored.from == 0 && HasFactors(stored)) {
    writes.index_bytes += g.num_layers * g.key_basis_bytes();
  }
  if (!stored.tiered) return writes;
  int64_t tokens = stored.to - stored.from;
  // A step that settles an extent of clusters stores its tokens again, in another order.
  if (g.unsettled_tokens > 0 && stored.from > 0) tokens += NewlySettled(stored) * kExtentTokens;
  writes.offload_bytes = g.num_layers * tokens * (g.extent_bytes() / kExtentTokens);
  return writes;
}

}  // namespace spin
