// Every configuration key: name, default, what is allowed, what it means, and how its text becomes
// a value.
//
// One table serves the YAML file, --set, the environment, --help-config and --print-config, so that
// they cannot disagree.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/status.h"
#include "server/server_config.h"

namespace spin {

struct ConfigKey {
  std::string_view name;           // "memory.hbm_budget"
  std::string_view default_value;  // as one would write it
  std::string_view allowed;        // "bytes (60GiB) or auto"
  std::string_view help;
  // Parses `text` into `config`. The error says what is wrong with the value, without the key.
  absl::Status (*set)(ServerConfig& config, const std::string& text);
};

// All keys, in the order of the documentation.
std::span<const ConfigKey> ConfigKeys();

// The key of that name, or null.
const ConfigKey* FindConfigKey(std::string_view name);

// "SPIN_MEMORY_HBM_BUDGET".
std::string EnvironmentName(const ConfigKey& key);

// What --help-config prints.
std::string ConfigHelp();

}  // namespace spin
