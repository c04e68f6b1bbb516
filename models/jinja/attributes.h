// value.name and value[key] by Jinja's rules: an attribute falls back to an item, and an item to an
// attribute.
#pragma once

#include <string>

#include "models/jinja/context.h"
#include "models/jinja/value.h"

namespace spin::jinja {

// value.name: a method first, then an item of a mapping; undefined when there is neither. An error
// for undefined itself.
absl::StatusOr<Value> GetAttribute(Context& context, const Value& value, const std::string& name);

// value[key]: an item first, then (for a string) an attribute.
absl::StatusOr<Value> GetItem(const Value& value, const Value& key);

}  // namespace spin::jinja
