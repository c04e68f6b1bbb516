// Values as Python prints them: str(value) and repr(value).
#pragma once

#include <string>
#include <string_view>

#include "models/jinja/context.h"
#include "models/jinja/value.h"

namespace spin::jinja {

// str(): the text that {{ value }} prints.
absl::StatusOr<std::string> Str(Context& context, const Value& value);

// repr(): strings quoted, as inside a printed list.
absl::StatusOr<std::string> Repr(Context& context, const Value& value);

// repr of a float: the shortest digits that read back the same, "1.0", "1e+16", "inf", "nan".
std::string FloatRepr(double value);

std::string StringRepr(std::string_view text);

// The type as Jinja's messages name it: "str object", "dict object", "None".
std::string TypeName(const Value& value);

}  // namespace spin::jinja
