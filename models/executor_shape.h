// What a ModelExecutor is sized for, from its options, the algorithm and the cache. Pure functions; of model_executor
// alone.
#pragma once

#include <cstdint>

#include "models/model_executor.h"
#include "models/workspace.h"

namespace spin {

// Batch sizes that steps are captured for: powers of two, then multiples of 8.
int32_t BatchBucket(int32_t n, int32_t max_batch);

// A prompt of the whole context is prefilled in one batch.
int32_t MaxPrefillTokens(const ModelExecutorOptions& options);

WorkspaceShape ShapeOf(const ModelExecutorOptions& options, const SparseAlgorithm& algorithm,
                       const KvGeometry& geometry, const Ops& ops);

}  // namespace spin
