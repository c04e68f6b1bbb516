// spin_bench trace replay: a trace's hit ratio over the buffer's size, for each eviction policy.
#pragma once

#include <span>
#include <string>

#include "common/status.h"

namespace spin::trace {

// Own arguments: TRACE, --buffer-ratio=R,... (each >= 1), --warmup=STEPS (not counted), --output-json=FILE (what
// plot_trace.py draws).
absl::Status RunReplay(std::span<const std::string> args);

}  // namespace spin::trace
