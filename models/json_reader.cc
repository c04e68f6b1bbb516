#include "models/json_reader.h"

#include <cmath>

namespace spin {

absl::StatusOr<Json> ParseJsonObject(std::string_view text, const std::string& what) {
  // Bounds the nesting: neither the parser's stack nor the value's destructor may grow with hostile
  // text.
  constexpr int kMaxDepth = 64;
  bool too_deep = false;
  const Json::parser_callback_t bound = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  Json value;
  try {
    value = Json::parse(text.begin(), text.end(), bound);
  } catch (const Json::exception& e) {
    return InvalidArgument("%s is not valid JSON: %s", what, e.what());
  }
  if (too_deep) return InvalidArgument("%s is nested more than %d levels deep", what, kMaxDepth);
  if (!value.is_object()) return InvalidArgument("%s is not a JSON object", what);
  return value;
}

const Json* JsonReader::Find(const std::string& key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<std::optional<int64_t>> JsonReader::Int(const std::string& key, int64_t min,
                                                       int64_t max) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<int64_t>();
  if (!value->is_number()) return Error(key, "is not an integer");
  const double number = value->get<double>();
  if (number != std::floor(number) || number < static_cast<double>(min) ||
      number > static_cast<double>(max)) {
    return Error(key, absl::StrFormat("is %g, not an integer in %d..%d", number, min, max));
  }
  return std::optional<int64_t>(static_cast<int64_t>(number));
}

absl::StatusOr<std::optional<double>> JsonReader::Number(const std::string& key, double min,
                                                         double max) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number()) return Error(key, "is not a number");
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) {
    return Error(key, absl::StrFormat("is %g, not in %g..%g", number, min, max));
  }
  return std::optional<double>(number);
}

absl::StatusOr<std::optional<bool>> JsonReader::Bool(const std::string& key) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean()) return Error(key, "is not true or false");
  return std::optional<bool>(value->get<bool>());
}

absl::StatusOr<std::optional<std::string>> JsonReader::String(const std::string& key) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return Error(key, "is not a string");
  return std::optional<std::string>(value->get<std::string>());
}

absl::StatusOr<std::vector<int32_t>> JsonReader::IntList(const std::string& key) const {
  const Json* value = Find(key);
  std::vector<int32_t> list;
  if (value == nullptr) return list;
  const auto add = [&](const Json& item) {
    if (!item.is_number_integer()) return false;
    const int64_t number = item.get<int64_t>();
    if (number < 0 || number > std::numeric_limits<int32_t>::max()) return false;
    list.push_back(static_cast<int32_t>(number));
    return true;
  };
  if (!value->is_array()) {
    if (!add(*value)) return Error(key, "is not a token id");
    return list;
  }
  constexpr std::size_t kMaxItems = 64;
  if (value->size() > kMaxItems) return Error(key, "has too many items");
  for (const Json& item : *value) {
    if (!add(item)) return Error(key, "is not a list of token ids");
  }
  return list;
}

absl::StatusOr<int32_t> JsonReader::RequiredInt(const std::string& key, int32_t min,
                                                int32_t max) const {
  SPIN_ASSIGN_OR_RETURN(const std::optional<int64_t> value, Int(key, min, max));
  if (!value.has_value()) return Error(key, "is missing");
  return static_cast<int32_t>(*value);
}

}  // namespace spin
