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

struct Assignment {
  std::string key;
  std::string value;
  std::string flag = "--set";  // that said so

  friend bool operator==(const Assignment&, const Assignment&) = default;
};

struct ConfigSources {
  std::optional<std::string> file;                             // path of a YAML file
  std::function<const char*(const std::string&)> environment;  // getenv, or a test's
  std::vector<Assignment> assignments;                         // in order
};

// InvalidArgument with file, line and key (or the variable, or the flag), what is wrong and what is
// allowed; an unknown key comes with the closest known one.
absl::StatusOr<LoadedConfig> LoadConfig(const ConfigSources& sources);

// An error of whoever used the configuration, with the source of the key that its message begins with
// ("memory.hbm_budget: ..."), if it has one that is no default.
absl::Status WithSource(const LoadedConfig& loaded, const absl::Status& status);

// YAML that LoadConfig reads again, each line with its source as a comment.
std::string PrintConfig(const LoadedConfig& loaded);

}  // namespace spin
