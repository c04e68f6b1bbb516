#include "models/jinja/arguments.h"

#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"

namespace spin::jinja {

const Value* Arguments::FindKeyword(std::string_view name) const {
  for (const auto& [key, value] : keyword) {
    if (key == name) return &value;
  }
  return nullptr;
}

absl::StatusOr<BoundArguments> BoundArguments::Bind(
    std::string_view callee, const Arguments& arguments,
    std::initializer_list<std::string_view> parameters, size_t required) {
  BoundArguments bound;
  bound.names_.assign(parameters.begin(), parameters.end());
  bound.values_.resize(parameters.size());
  bound.given_.resize(parameters.size(), false);
  if (arguments.positional.size() > parameters.size()) {
    return InvalidArgument("%s takes at most %d arguments, not %d", callee, parameters.size(),
                           arguments.positional.size());
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    bound.values_[i] = arguments.positional[i];
    bound.given_[i] = true;
  }
  for (const auto& [name, value] : arguments.keyword) {
    size_t i = 0;
    while (i < bound.names_.size() && bound.names_[i] != name) ++i;
    if (i == bound.names_.size()) return InvalidArgument("%s has no argument '%s'", callee, name);
    if (bound.given_[i]) return InvalidArgument("%s was given '%s' twice", callee, name);
    bound.values_[i] = value;
    bound.given_[i] = true;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound.given_[i])
      return InvalidArgument("%s needs the argument '%s'", callee, bound.names_[i]);
  }
  return bound;
}

absl::StatusOr<int64_t> BoundArguments::Integer(size_t i, int64_t missing) const {
  if (!has(i) || at(i).is_none()) return missing;
  return ToInteger(at(i), names_[i]);
}

absl::StatusOr<std::string> BoundArguments::String(size_t i, std::string_view missing) const {
  if (!has(i) || at(i).is_none()) return std::string(missing);
  if (at(i).is_undefined()) return UndefinedError(at(i));
  if (!at(i).is_string()) {
    return InvalidArgument("'%s' must be a string, not %s", names_[i], TypeName(at(i)));
  }
  return at(i).string_value();
}

bool BoundArguments::Flag(size_t i, bool missing) const {
  return has(i) ? Truthy(at(i)) : missing;
}

}  // namespace spin::jinja
