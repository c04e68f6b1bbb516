#include "models/executor_shape.h"

#include <algorithm>

#include "common/math.h"
#include "models/prefill_run.h"

namespace spin {
namespace {

// The most pages that one stream lists in a step, where one Select returns `selected`.
int32_t MostListed(const SparseAlgorithm& algorithm, const KvGeometry& geometry, int32_t selected) {
  for (int32_t layer = 0; layer < geometry.num_layers; ++layer) {
    if (algorithm.Demand(layer).whole_context) return geometry.max_pages();
  }
  return selected;
}

}  // namespace

int32_t MaxPrefillTokens(const ModelExecutorOptions& options) {
  return std::max(options.max_prefill_tokens, options.max_model_len);
}

WorkspaceShape ShapeOf(const ModelExecutorOptions& options, const SparseAlgorithm& algorithm,
                       const KvGeometry& geometry, const Ops& ops) {
  // Every sequence of a batch begins at a page of its own.
  const int32_t staging_pages =
      CeilDiv(MaxPrefillTokens(options), geometry.page_tokens) + geometry.max_rows;
  const IndexShape index = {.ops = &ops,
                            .geometry = geometry,
                            .staging_pages = staging_pages,
                            .max_batch = options.max_batch};
  const int32_t selected = std::max(MostSelected(algorithm, geometry),
                                    std::min(options.max_budget_pages, geometry.max_pages()));
  return {.max_batch = options.max_batch,
          .max_rows = geometry.max_rows,
          .tile_tokens = options.tile_tokens,
          .max_prefill_tokens = MaxPrefillTokens(options),
          .staging_pages = staging_pages,
          .index_scratch_bytes = algorithm.PrefillScratchBytes(index),
          .decode_index_scratch_bytes = algorithm.DecodeScratchBytes(index),
          .max_list = MostListed(algorithm, geometry, selected),
          .max_selected = selected,
          .max_estimated = algorithm.MaxEstimated(geometry.max_pages()),
          .geometry = geometry};
}

int64_t ModelExecutor::DeviceBytes(const ModelExecutorOptions& options, const ModelConfig& config,
                                   const SparseAlgorithm& algorithm, const KvGeometry& geometry,
                                   DType dtype, const Ops& ops) {
  const int64_t rope_table = int64_t{options.max_model_len} * config.head_dim * 4;
  return WorkspaceBytes(ShapeOf(options, algorithm, geometry, ops), config, dtype) + rope_table +
         PrefillRun::DeviceBytes(MaxPrefillTokens(options), geometry.max_rows);
}

KvGeometry MakeGeometry(const ModelConfig& config, const SparseAlgorithm& algorithm, DType dtype,
                        int32_t max_rows, int32_t max_model_len) {
  return {.num_layers = config.num_layers,
          .num_kv_heads = config.num_kv_heads,
          .num_q_heads = config.num_q_heads,
          .head_dim = config.head_dim,
          .page_tokens = algorithm.page_tokens(),
          .max_rows = max_rows,
          .max_extents = CeilDiv(max_model_len, kExtentTokens),
          .summary_elements = algorithm.summary_elements(),
          .partition_tokens = algorithm.partition_tokens(),
          .unsettled_tokens = algorithm.unsettled_tokens(),
          .key_rank = algorithm.key_rank(),
          .dtype = dtype};
}

}  // namespace spin
