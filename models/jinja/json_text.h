// The tojson filter: Python's json.dumps as transformers calls it.
#pragma once

#include <optional>
#include <string>

#include "models/jinja/context.h"
#include "models/jinja/value.h"

namespace spin::jinja {

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // the text of one level; none: everything on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// JSON text of `value`. Undefined, namespaces and lazy sequences have none.
absl::StatusOr<std::string> JsonText(Context& context, const Value& value, const JsonStyle& style);

}  // namespace spin::jinja
