// `spin_bench serve`: parses the flags, runs the load, shows progress, prints the report.
#pragma once

#include <span>
#include <string>

namespace spin {

// The process's exit status: 0 when every request completed, 1 when one failed or nothing ran, 2
// for bad flags.
int RunServeCommand(std::span<const std::string> args);

}  // namespace spin
