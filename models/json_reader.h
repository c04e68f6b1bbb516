// Typed access to a JSON object of a model folder, with errors that name the key. For this folder's
// .cc files only.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace spin {

using Json = nlohmann::json;

// The object that `text` is. InvalidArgument with the position when it is no JSON, or no object.
absl::StatusOr<Json> ParseJsonObject(std::string_view text, const std::string& what);

// Reads keys of one object. null counts as absent.
class JsonReader {
 public:
  JsonReader(const Json& object, std::string what) : object_(object), what_(std::move(what)) {}

  const Json* Find(const std::string& key) const;
  absl::StatusOr<std::optional<int64_t>> Int(const std::string& key, int64_t min,
                                             int64_t max) const;
  absl::StatusOr<std::optional<double>> Number(const std::string& key, double min,
                                               double max) const;
  absl::StatusOr<std::optional<bool>> Bool(const std::string& key) const;
  absl::StatusOr<std::optional<std::string>> String(const std::string& key) const;
  // One integer or a list of them.
  absl::StatusOr<std::vector<int32_t>> IntList(const std::string& key) const;
  absl::StatusOr<int32_t> RequiredInt(const std::string& key, int32_t min, int32_t max) const;

  absl::Status Error(const std::string& key, const std::string& message) const {
    return InvalidArgument("%s: key '%s' %s", what_, key, message);
  }

 private:
  const Json& object_;
  std::string what_;
};

}  // namespace spin
