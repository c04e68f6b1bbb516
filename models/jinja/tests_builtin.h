// The tests behind `is`: defined, string, mapping, odd, ...
#pragma once

#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/context.h"

namespace spin::jinja {

bool IsTest(std::string_view name);

// `value is name(arguments)`; an error when there is no such test (its name may be computed by the
// template).
absl::StatusOr<bool> CallTest(Context& context, std::string_view name, const Value& value,
                              const Arguments& arguments);

}  // namespace spin::jinja
