// The arguments of one call, and their binding to the names of a built-in's parameters.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/context.h"
#include "models/jinja/value.h"

namespace spin::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;

  // Takes a keyword argument out; null when absent.
  const Value* FindKeyword(std::string_view name) const;
};

// The arguments of a built-in in the order of its parameters. An argument that was not given is
// absent, whatever values mean elsewhere (None and undefined are values).
class BoundArguments {
 public:
  // `parameters` lists the names, the first `required` of which must be given. `callee` names the
  // built-in in errors.
  static absl::StatusOr<BoundArguments> Bind(std::string_view callee, const Arguments& arguments,
                                             std::initializer_list<std::string_view> parameters,
                                             size_t required = 0);

  bool has(size_t i) const { return given_[i]; }
  // REQUIRES: has(i).
  const Value& at(size_t i) const { return values_[i]; }

  // The argument when given and not None, else `missing`; an error when it has another type.
  absl::StatusOr<int64_t> Integer(size_t i, int64_t missing) const;
  absl::StatusOr<std::string> String(size_t i, std::string_view missing) const;
  // Any value's truth.
  bool Flag(size_t i, bool missing) const;

 private:
  std::vector<std::string> names_;
  std::vector<Value> values_;
  std::vector<bool> given_;
};

}  // namespace spin::jinja
