// Template text to a syntax tree.
#pragma once

#include <string_view>

#include "common/status.h"
#include "models/jinja/ast.h"

namespace spin::jinja {

// Errors are "line N: ..."; a tag, filter, test, function or method that the interpreter lacks is
// one of them.
absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace spin::jinja
