#include "models/checkpoint.h"

#include <absl/strings/str_join.h>

#include <filesystem>
#include <set>
#include <utility>

#include "models/json_reader.h"

namespace spin {
namespace {

constexpr std::size_t kMaxShards = 1000;

// File names of the shards that the index names, each once. They must lie in the folder itself.
absl::StatusOr<std::set<std::string>> ShardNames(const std::string& index_path) {
  SPIN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(index_path));
  SPIN_ASSIGN_OR_RETURN(const Json index, ParseJsonObject(text, index_path));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    return InvalidArgument("%s has no weight_map", index_path);
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) return InvalidArgument("%s: weight_map names no file", index_path);
    const std::string name = file.get<std::string>();
    if (name.empty() || name.find('/') != std::string::npos || name.front() == '.') {
      return InvalidArgument("%s: '%s' is no file name of the folder", index_path, name);
    }
    names.insert(name);
    if (names.size() > kMaxShards) return InvalidArgument("%s names too many files", index_path);
  }
  return names;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  std::set<std::string> names;
  const std::string index_path = folder + "/model.safetensors.index.json";
  if (std::filesystem::exists(index_path)) {
    SPIN_ASSIGN_OR_RETURN(names, ShardNames(index_path));
  } else if (std::filesystem::exists(folder + "/model.safetensors")) {
    names.insert("model.safetensors");
  } else {
    return NotFound("%s has neither model.safetensors nor model.safetensors.index.json", folder);
  }
  for (const std::string& name : names) {
    SPIN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(folder + "/" + name));
    checkpoint.files_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
  }
  return checkpoint;
}

absl::StatusOr<TensorView> Checkpoint::Find(const std::string& name,
                                            const std::vector<int64_t>& shape) const {
  for (const auto& file : files_) {
    const auto it = file->tensors().find(name);
    if (it == file->tensors().end()) continue;
    if (it->second.shape != shape) {
      return InvalidArgument("%s: tensor '%s' has shape [%s], config.json asks for [%s]", folder_,
                             name, absl::StrJoin(it->second.shape, ", "),
                             absl::StrJoin(shape, ", "));
    }
    return it->second;
  }
  return NotFound("%s: tensor '%s' is missing (or of an unsupported type)", folder_, name);
}

bool Checkpoint::Contains(const std::string& name) const {
  for (const auto& file : files_) {
    if (file->tensors().contains(name)) return true;
  }
  return false;
}

}  // namespace spin
