#include "server/backend_limits.h"

namespace spin {

absl::Status CheckBackendLimits(const OpsLimits& limits, const BackendDemand& demand) {
  const KvGeometry& g = demand.geometry;
  if (g.group() > limits.query_group) {
    return InvalidArgument(
        "config.json num_attention_heads: %d query heads a KV head; this device serves at most %d "
        "(backend.device=cpu serves any number)",
        g.group(), limits.query_group);
  }
  if (demand.vocab_size > limits.vocab_size) {
    return InvalidArgument(
        "config.json vocab_size: %d; this device samples from at most %d (backend.device=cpu from "
        "any number)",
        demand.vocab_size, limits.vocab_size);
  }
  if (demand.prefill_tile_tokens > limits.tile_tokens) {
    return InvalidArgument("scheduler.prefill_tile_tokens: %d; at most %d on this device",
                           demand.prefill_tile_tokens, limits.tile_tokens);
  }
  if (g.key_rank > 0 && g.key_width() > limits.factor_width) {
    return InvalidArgument(
        "sparse.shadowkv.rank: the keys of a token have %d elements; this device makes factors of "
        "at most %d (0: keys are retrieved)",
        g.key_width(), limits.factor_width);
  }
  if (demand.retrieved_clusters == 0) return absl::OkStatus();
  if (int64_t{demand.max_num_seqs} * g.num_kv_heads > limits.cluster_streams) {
    return InvalidArgument(
        "scheduler.max_num_seqs: %d; at most %d on this device with sparse.algorithm=retroinfer "
        "and %d KV heads",
        demand.max_num_seqs, limits.cluster_streams / g.num_kv_heads, g.num_kv_heads);
  }
  if (demand.retrieved_clusters > limits.retrieved_clusters) {
    return InvalidArgument(
        "sparse.retroinfer.retrieve_permille: a step would retrieve up to %d clusters in a context "
        "of %d tokens; this device ranks at most %d (lower it, "
        "sparse.retroinfer.min_budget_tokens, "
        "sparse.budget_tokens or model.max_model_len)",
        demand.retrieved_clusters, g.max_extents * kExtentTokens, limits.retrieved_clusters);
  }
  return absl::OkStatus();
}

}  // namespace spin
