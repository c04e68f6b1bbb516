// What is wrong with a request, found before it enters the queue.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "engine/engine_options.h"
#include "engine/request.h"
#include "memory/kv_cache_manager.h"
#include "models/executor.h"

namespace spin {

// The longest sequence: the model's and the configuration's limit, whichever is less.
int32_t MaxModelLen(const EngineOptions& options, const ExecutorLimits& limits);

// What the request's own wishes come to. Any thread: it reads only what never changes. Errors as Engine::Submit says.
absl::StatusOr<ResolvedRequest> CheckRequest(const Request& request, const EngineOptions& options,
                                             const ExecutorLimits& limits,
                                             const KvCacheManager& memory, bool has_tokenizer);

}  // namespace spin
