// Methods of strings and mappings, as Python has them.
//
// Methods that change their object (append, update, pop) are not here: chat templates run with
// immutable data.
#pragma once

#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/context.h"

namespace spin::jinja {

// Whether any type has a method of this name (loop.cycle and loop.changed included).
bool IsMethod(std::string_view name);

// Whether `self.name` is a method: an attribute access finds it before an item of a mapping.
bool HasMethod(const Value& self, std::string_view name);

// self.name(arguments). REQUIRES: HasMethod(self, name).
absl::StatusOr<Value> CallMethod(Context& context, const Value& self, std::string_view name,
                                 const Arguments& arguments);

}  // namespace spin::jinja
