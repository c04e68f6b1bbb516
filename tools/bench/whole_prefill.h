// A prompt from begin to end, where nothing else runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/kv_cache_manager.h"
#include "models/executor.h"

namespace spin::bench {

// Prefills rows that are admitted and started, whose tables are applied, with one prompt for all of them. What comes
// back is the last pass's, with each row's first token, but prefill_ns that of all passes. REQUIRES: no pass in flight.
PassResult PrefillWhole(Executor& executor, KvCacheManager& memory, std::span<const RowId> rows,
                        std::vector<int32_t> tokens);

}  // namespace spin::bench
