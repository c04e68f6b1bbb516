// spin_bench trace: records what a model selects while it reads a text, and replays it through cache policies.
#pragma once

#include <span>
#include <string>

namespace spin::trace {

// `record` or `replay` and its arguments; --help says them. Returns the exit status.
int RunTrace(std::span<const std::string> args);

}  // namespace spin::trace
