// Merges the sources of the configuration: defaults, YAML file, environment, flags; later ones win.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "server/server_config.h"

namespace spin {

// A value as text, and where it came from ("default", "spind.yaml:12", "SPIN_LOG_LEVEL", "--set").
struct ConfigValue {
  std::string text;
  std::string source;
};

struct LoadedConfig {
  ServerConfig config;
  std::map<std::string, ConfigValue> values;  // by key name, all keys
};

struct ConfigSources {
  std::optional<std::string> file;                               // path of a YAML file
  std::function<const char*(const std::string&)> environment;    // getenv, or a test's
  std::vector<std::pair<std::string, std::string>> assignments;  // KEY, VALUE of --set, in order
};

// InvalidArgument with file, line and key (or the variable, or the flag), what is wrong and what is
// allowed; an unknown key comes with the closest known one.
absl::StatusOr<LoadedConfig> LoadConfig(const ConfigSources& sources);

// YAML that LoadConfig reads again, each line with its source as a comment.
std::string PrintConfig(const LoadedConfig& loaded);

}  // namespace spin
