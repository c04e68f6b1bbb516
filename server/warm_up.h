// One request through the whole engine before the server says that it is ready: the first real one
// then finds warm code and a proven path. Steps of every size were captured before
// (ModelExecutor::WarmUp).
#pragma once

#include <cstdint>

#include "common/status.h"
#include "server/generation_backend.h"

namespace spin {

// Blocks until the request has finished. Unavailable when it fails or takes longer than a minute.
absl::Status WarmUp(GenerationBackend& backend, int32_t vocab_size);

}  // namespace spin
