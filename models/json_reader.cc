#include "models/json_reader.h"

#include <algorithm>
#include <cmath>

namespace spin {

namespace {

constexpr int kMaxDepth = 64;

// The deepest nesting of brackets outside of strings; of malformed text some bound of it.
int NestingDepth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

absl::StatusOr<Json> ParseJsonObject(std::string_view text, const std::string& what) {
  // Values are destroyed recursively: hostile text must not grow the stack.
  if (NestingDepth(text) > kMaxDepth) {
    return InvalidArgument("%s is nested more than %d levels deep", what, kMaxDepth);
  }
  Json value;
  try {
    value = Json::parse(text.begin(), text.end());
  } catch (const Json::exception& e) {
    return InvalidArgument("%s is not valid JSON: %s", what, e.what());
  }
  if (!value.is_object())
    return InvalidArgument("%s is a JSON %s, not an object", what, value.type_name());
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
