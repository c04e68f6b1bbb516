#include "server/openai/template_value.h"

#include <cstdint>
#include <utility>

#include "server/openai/parse_helpers.h"

namespace spin {

jinja::Value ToTemplateValue(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return jinja::Value::Bool(json.get<bool>());
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      if (const auto integer = IntegerOf(json); integer.has_value())
        return jinja::Value::Int(*integer);
      return jinja::Value::Double(json.get<double>());
    case Json::value_t::number_float:
      return jinja::Value::Double(json.get<double>());
    case Json::value_t::string:
      return jinja::Value::String(json.get<std::string>());
    case Json::value_t::array: {
      jinja::ValueList items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(ToTemplateValue(item));
      return jinja::Value::List(std::move(items));
    }
    case Json::value_t::object: {
      jinja::Dict dict;
      for (const auto& [key, value] : json.items()) dict.Set(key, ToTemplateValue(value));
      return jinja::Value::Map(std::move(dict));
    }
    default:
      return jinja::Value::None();
  }
}

}  // namespace spin
