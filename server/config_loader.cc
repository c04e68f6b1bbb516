#include "server/config_loader.h"

#include <absl/strings/ascii.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <numeric>

#include "common/mapped_file.h"
#include "server/config_schema.h"

namespace spin {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

absl::Status UnknownKey(const std::string& where, const std::string& name) {
  const ConfigKey* best = nullptr;
  int best_distance = 0;
  for (const ConfigKey& key : ConfigKeys()) {
    const int distance = EditDistance(key.name, name);
    if (best == nullptr || distance < best_distance) {
      best = &key;
      best_distance = distance;
    }
  }
  return InvalidArgument("%s: unknown key '%s'; did you mean '%s'? (spind --help-config lists all)",
                         where, name.substr(0, 200), best->name);
}

absl::Status Assign(LoadedConfig& loaded, const std::string& name, const std::string& text,
                    const std::string& source) {
  const ConfigKey* key = FindConfigKey(name);
  if (key == nullptr) return UnknownKey(source, name);
  const absl::Status status = key->set(loaded.config, text);
  if (!status.ok()) {
    return InvalidArgument("%s: key '%s': %s (allowed: %s)", source, name, MessageOf(status),
                           key->allowed);
  }
  loaded.values[name] = {text, source};
  return absl::OkStatus();
}

// Is there a key below `prefix`?
bool IsSection(const std::string& prefix) {
  return std::ranges::any_of(ConfigKeys(), [&](const ConfigKey& key) {
    return key.name.size() > prefix.size() + 1 && key.name.starts_with(prefix) &&
           key.name[prefix.size()] == '.';
  });
}

// A scalar's text, or the items of a list of scalars with commas between.
absl::StatusOr<std::string> ScalarText(const YAML::Node& node, const std::string& where,
                                       const std::string& name) {
  if (node.IsScalar()) return node.Scalar();
  if (node.IsNull()) return InvalidArgument("%s: key '%s' has no value", where, name);
  if (!node.IsSequence()) return InvalidArgument("%s: key '%s' is no single value", where, name);
  std::string text;
  for (const YAML::Node& item : node) {
    if (!item.IsScalar()) return InvalidArgument("%s: key '%s' is no list of values", where, name);
    text += (text.empty() ? "" : ",") + item.Scalar();
  }
  return text;
}

absl::Status ReadMap(const YAML::Node& map, const std::string& prefix, const std::string& path,
                     LoadedConfig& loaded) {
  for (const auto& entry : map) {
    const std::string where = absl::StrFormat("%s:%d", path, entry.first.Mark().line + 1);
    if (!entry.first.IsScalar()) return InvalidArgument("%s: a key is no plain word", where);
    const std::string name =
        prefix.empty() ? entry.first.Scalar() : prefix + "." + entry.first.Scalar();
    if (FindConfigKey(name) == nullptr && IsSection(name)) {
      if (entry.second.IsNull()) continue;
      if (!entry.second.IsMap())
        return InvalidArgument("%s: '%s' is a section, not a value", where, name);
      SPIN_RETURN_IF_ERROR(ReadMap(entry.second, name, path, loaded));
      continue;
    }
    if (FindConfigKey(name) == nullptr) return UnknownKey(where, name);
    const auto earlier = loaded.values.find(name);
    if (earlier != loaded.values.end() && earlier->second.source.starts_with(path + ":")) {
      return InvalidArgument("%s: key '%s' is given twice (first at %s)", where, name,
                             earlier->second.source);
    }
    SPIN_ASSIGN_OR_RETURN(const std::string text, ScalarText(entry.second, where, name));
    SPIN_RETURN_IF_ERROR(Assign(loaded, name, text, where));
  }
  return absl::OkStatus();
}

absl::Status ReadFile(const std::string& path, LoadedConfig& loaded) {
  SPIN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxFileBytes));
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) return InvalidArgument("%s: the file is no map of sections", path);
    return ReadMap(root, "", path, loaded);
  } catch (const YAML::Exception& e) {
    return InvalidArgument("%s:%d: not valid YAML: %s", path, e.mark.line + 1, e.msg);
  }
}

// What no key can say alone.
absl::Status CheckTogether(const LoadedConfig& loaded) {
  if (loaded.config.min_buffer_ratio <= loaded.config.max_buffer_ratio) return absl::OkStatus();
  const auto& least = loaded.values.at("memory.min_buffer_ratio");
  const auto& most = loaded.values.at("memory.max_buffer_ratio");
  return InvalidArgument(
      "%s: key 'memory.min_buffer_ratio': '%s' is more than memory.max_buffer_ratio, '%s' (%s)",
      least.source, least.text, most.text, most.source);
}

// A value as YAML reads it back: plain where nothing in it can be taken for syntax.
std::string YamlScalar(const std::string& text) {
  const bool plain = !text.empty() && text != "null" && text != "Null" && text != "NULL" &&
                     std::ranges::all_of(text, [](char c) {
                       return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                              std::string_view("._-/+,").find(c) != std::string_view::npos;
                     });
  if (plain && text.front() != ',' && text.front() != '-') return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      quoted += absl::StrFormat("\\x%02x", static_cast<unsigned char>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

}  // namespace

absl::StatusOr<LoadedConfig> LoadConfig(const ConfigSources& sources) {
  LoadedConfig loaded;
  for (const ConfigKey& key : ConfigKeys()) {
    SPIN_RETURN_IF_ERROR(
        Assign(loaded, std::string(key.name), std::string(key.default_value), "default"));
  }
  if (sources.file.has_value()) SPIN_RETURN_IF_ERROR(ReadFile(*sources.file, loaded));
  if (sources.environment) {
    for (const ConfigKey& key : ConfigKeys()) {
      const std::string variable = EnvironmentName(key);
      const char* text = sources.environment(variable);
      if (text == nullptr) continue;
      SPIN_RETURN_IF_ERROR(Assign(loaded, std::string(key.name), text, variable));
    }
  }
  for (const Assignment& given : sources.assignments) {
    SPIN_RETURN_IF_ERROR(Assign(loaded, given.key, given.value, given.flag));
  }
  SPIN_RETURN_IF_ERROR(CheckTogether(loaded));
  return loaded;
}

absl::Status WithSource(const LoadedConfig& loaded, const absl::Status& status) {
  const std::string message = MessageOf(status);
  const auto value = loaded.values.find(message.substr(0, message.find(": ")));
  if (value == loaded.values.end() || value->second.source == "default") return status;
  return Annotate(status, value->second.source);
}

std::string PrintConfig(const LoadedConfig& loaded) {
  std::string out;
  std::vector<std::string_view> open;  // sections above the current line
  for (const ConfigKey& key : ConfigKeys()) {
    std::vector<std::string_view> parts;
    for (std::string_view rest = key.name;;) {
      const std::size_t dot = rest.find('.');
      parts.push_back(rest.substr(0, dot));
      if (dot == std::string_view::npos) break;
      rest.remove_prefix(dot + 1);
    }
    for (std::size_t depth = 0; depth + 1 < parts.size(); ++depth) {
      if (depth < open.size() && open[depth] == parts[depth]) continue;
      open.resize(depth);
      open.push_back(parts[depth]);
      out += absl::StrFormat("%s%s:\n", std::string(2 * depth, ' '), parts[depth]);
    }
    open.resize(parts.size() - 1);
    const ConfigValue& value = loaded.values.at(std::string(key.name));
    const std::string text = YamlScalar(value.text);
    out += absl::StrFormat("%s%s: %-24s # %s\n", std::string(2 * (parts.size() - 1), ' '),
                           parts.back(), text, value.source);
  }
  return out;
}

}  // namespace spin
