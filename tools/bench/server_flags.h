// The server's own flags on a tool's command line.
#pragma once

#include <span>
#include <string>

#include "common/status.h"
#include "server/server_config.h"

namespace spin::bench {

// The configuration that spind would run with, environment and files included.
absl::StatusOr<ServerConfig> ConfigFromFlags(std::span<const std::string> args);

}  // namespace spin::bench
