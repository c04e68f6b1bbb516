// The text of a string literal in a template: Python's backslash escapes.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace spin::jinja {

// `body` is what stands between the quotes. Unknown escapes keep their backslash, as in Python.
absl::StatusOr<std::string> UnescapeString(std::string_view body);

}  // namespace spin::jinja
