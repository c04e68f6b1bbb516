// The global functions of chat templates: range, dict, namespace, raise_exception, strftime_now.
#pragma once

#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/context.h"

namespace spin::jinja {

bool IsFunction(std::string_view name);

// REQUIRES: IsFunction(name).
absl::StatusOr<Value> CallFunction(Context& context, std::string_view name,
                                   const Arguments& arguments);

}  // namespace spin::jinja
