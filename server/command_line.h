// The command line of spind.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "server/config_loader.h"

namespace spin {

struct CommandLine {
  ConfigSources sources;
  std::string ready_file;  // --ready-file, may be empty
  bool help = false;
  bool help_config = false;
  bool print_config = false;
  bool check_config = false;
  bool version = false;
};

// InvalidArgument names the argument.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& args);

// What --help prints.
std::string CommandLineHelp();

}  // namespace spin
