// Methods of Python's str that templates use.
#pragma once

#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/context.h"

namespace spin::jinja {

bool IsStringMethod(std::string_view name);

// self.name(arguments). REQUIRES: self is a string, IsStringMethod(name).
absl::StatusOr<Value> CallStringMethod(Context& context, const Value& self, std::string_view name,
                                       const Arguments& arguments);

// str.replace(old, new, count); a negative count replaces all.
absl::StatusOr<Value> ReplaceText(Context& context, std::string_view text, std::string_view old,
                                  std::string_view replacement, int64_t count);

// separator.join(items). Items that are not strings are an error, unless `convert` (the join
// filter) prints them.
absl::StatusOr<Value> JoinText(Context& context, std::string_view separator, const ValueList& items,
                               bool convert);

// str.center(width) and its kin: `text` padded with `fill`.
enum class Align { kLeft, kRight, kCenter };
absl::StatusOr<Value> PadText(Context& context, std::string_view text, int64_t width,
                              std::string_view fill, Align align);

}  // namespace spin::jinja
