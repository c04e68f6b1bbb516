// Reading of JSON objects from files that nobody has checked: every access names the field when its
// type is wrong.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace spin {

// A field of `object`, null when it is absent or null. `object` may be any JSON value.
const nlohmann::json* FieldOrNull(const nlohmann::json& object, const char* name);

absl::StatusOr<bool> BoolField(const nlohmann::json& object, const char* name, bool otherwise);
absl::StatusOr<std::string> StringField(const nlohmann::json& object, const char* name);
// In [0, limit).
absl::StatusOr<int64_t> IndexValue(const nlohmann::json& value, std::string_view what,
                                   int64_t limit);
// The field must be an array, or an object.
absl::StatusOr<const nlohmann::json*> ArrayField(const nlohmann::json& object, const char* name);
absl::StatusOr<const nlohmann::json*> ObjectField(const nlohmann::json& object, const char* name);

}  // namespace spin
