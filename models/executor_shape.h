// What a ModelExecutor is sized for, from its options, the algorithm and the cache. Pure functions; of model_executor
// alone.
#pragma once

#include <cstdint>

#include "models/model_executor.h"
#include "models/workspace.h"

namespace spin {

// A prompt of the whole context is prefilled in one batch.
int32_t MaxPrefillTokens(const ModelExecutorOptions& options);

WorkspaceShape ShapeOf(const ModelExecutorOptions& options, const SparseAlgorithm& algorithm,
                       const KvGeometry& geometry, const Ops& ops);

}  // namespace spin
