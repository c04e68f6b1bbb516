// The filters behind `|`, with the results of Jinja's own (autoescape off).
#pragma once

#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/context.h"

namespace spin::jinja {

bool IsFilter(std::string_view name);

// `value | name(arguments)`; an error when there is no such filter (map takes names that the
// template computes).
absl::StatusOr<Value> CallFilter(Context& context, std::string_view name, const Value& value,
                                 const Arguments& arguments);

}  // namespace spin::jinja
