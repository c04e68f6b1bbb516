#include "tools/bench/server_flags.h"

#include <cstdlib>

#include "server/command_line.h"
#include "server/config_loader.h"

namespace spin::bench {

absl::StatusOr<ServerConfig> ConfigFromFlags(std::span<const std::string> args) {
  SPIN_ASSIGN_OR_RETURN(CommandLine line, ParseCommandLine({args.begin(), args.end()}));
  line.sources.environment = [](const std::string& name) { return std::getenv(name.c_str()); };
  SPIN_ASSIGN_OR_RETURN(const LoadedConfig loaded, LoadConfig(line.sources));
  return loaded.config;
}

}  // namespace spin::bench
