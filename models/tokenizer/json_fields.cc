#include "models/tokenizer/json_fields.h"

#include <nlohmann/json.hpp>

namespace spin {

const nlohmann::json* FieldOrNull(const nlohmann::json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto field = object.find(name);
  return field == object.end() || field->is_null() ? nullptr : &*field;
}

absl::StatusOr<bool> BoolField(const nlohmann::json& object, const char* name, bool otherwise) {
  const nlohmann::json* field = FieldOrNull(object, name);
  if (field == nullptr) return otherwise;
  if (!field->is_boolean())
    return InvalidArgument("\"%s\" is a JSON %s, not true or false", name, field->type_name());
  return field->get<bool>();
}

absl::StatusOr<std::string> StringField(const nlohmann::json& object, const char* name) {
  const nlohmann::json* field = FieldOrNull(object, name);
  if (field == nullptr) return InvalidArgument("\"%s\" is missing", name);
  if (!field->is_string())
    return InvalidArgument("\"%s\" is a JSON %s, not a string", name, field->type_name());
  return field->get<std::string>();
}

absl::StatusOr<int64_t> IndexValue(const nlohmann::json& value, std::string_view what,
                                   int64_t limit) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(limit)) {
    return InvalidArgument("%s must be a whole number from 0 to %d", what, limit - 1);
  }
  return static_cast<int64_t>(value.get<uint64_t>());
}

absl::StatusOr<const nlohmann::json*> ArrayField(const nlohmann::json& object, const char* name) {
  const nlohmann::json* field = FieldOrNull(object, name);
  if (field == nullptr || !field->is_array())
    return InvalidArgument("\"%s\" must be an array", name);
  return field;
}

absl::StatusOr<const nlohmann::json*> ObjectField(const nlohmann::json& object, const char* name) {
  const nlohmann::json* field = FieldOrNull(object, name);
  if (field == nullptr || !field->is_object())
    return InvalidArgument("\"%s\" must be an object", name);
  return field;
}

}  // namespace spin
