// spin_bench trace record: texts become tokens, the model reads them, its selections become a file.
#pragma once

#include <span>
#include <string>

#include "common/status.h"

namespace spin::trace {

// Own arguments: --text=FILE[,FILE...] (read one after another), --output=TRACE, --prompt-tokens=N, --steps=N; all
// others are the server's.
absl::Status RunRecord(std::span<const std::string> args);

}  // namespace spin::trace
