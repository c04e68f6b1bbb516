#include "server/openai/parse_helpers.h"

#include <cmath>
#include <limits>
#include <vector>

#include "server/error_mapping.h"

namespace spin {
namespace {

absl::Status WrongType(std::string_view param, std::string_view wanted, const Json& value) {
  return WithParam(InvalidArgument("Invalid type for '%s': expected %s, but got %s instead.", param,
                                   wanted, value.type_name()),
                   param, "invalid_type");
}

}  // namespace

const Json* FindMember(const Json& object, std::string_view name) {
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::optional<int64_t> IntegerOf(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::floor(number) != number || std::fabs(number) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(number);
}

absl::Status ReadNumber(const Json& object, std::string_view name, const NumberRange& range,
                        std::optional<double>& out) {
  const Json* member = FindMember(object, name);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_number()) return WrongType(name, "a number", *member);
  const double value = member->get<double>();
  if (!range.Contains(value)) {
    return BadParam(name, "Invalid '%s': %g is outside the range %s%g to %g.", name, value,
                    range.min_excluded ? "above " : "", range.min, range.max);
  }
  out = value;
  return absl::OkStatus();
}

absl::Status ReadInt(const Json& object, std::string_view name, int64_t min, int64_t max,
                     std::optional<int64_t>& out) {
  const Json* member = FindMember(object, name);
  if (member == nullptr) return absl::OkStatus();
  const std::optional<int64_t> value = IntegerOf(*member);
  if (!value.has_value()) return WrongType(name, "an integer", *member);
  if (*value < min || *value > max) {
    return BadParam(name, "Invalid '%s': %d is outside the range %d to %d.", name, *value, min,
                    max);
  }
  out = value;
  return absl::OkStatus();
}

absl::Status ReadBool(const Json& object, std::string_view name, bool& out) {
  const Json* member = FindMember(object, name);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_boolean()) return WrongType(name, "a boolean", *member);
  out = member->get<bool>();
  return absl::OkStatus();
}

absl::Status ReadString(const Json& object, std::string_view name, std::string& out) {
  const Json* member = FindMember(object, name);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_string()) return WrongType(name, "a string", *member);
  out = member->get_ref<const std::string&>();
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const Json& list, std::string_view param, int32_t vocab_size,
                          std::vector<int32_t>& out) {
  if (!list.is_array()) return WrongType(param, "a list of token ids", list);
  out.clear();
  out.reserve(list.size());
  for (const Json& item : list) {
    const std::optional<int64_t> id = IntegerOf(item);
    if (!id.has_value()) return WrongType(param, "a list of token ids", item);
    if (*id < 0 || *id >= vocab_size) {
      return BadParam(param, "Invalid '%s': token id %d is outside the vocabulary (0 to %d).",
                      param, *id, vocab_size - 1);
    }
    out.push_back(static_cast<int32_t>(*id));
  }
  return absl::OkStatus();
}

absl::Status RefuseMembers(const Json& object, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (FindMember(object, name) == nullptr) continue;
    return UnsupportedParam(
        name,
        absl::StrFormat("Unsupported parameter: '%s' is not supported by this server.", name));
  }
  return absl::OkStatus();
}

}  // namespace spin
