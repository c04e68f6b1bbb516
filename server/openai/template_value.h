// JSON to the values that a chat template sees.
#pragma once

#include "models/jinja/value.h"
#include "server/openai/json_body.h"

namespace spin {

// Keeps the order of members. Integers beyond 64 bits become doubles. Recursive: the nesting was bounded by the parser.
jinja::Value ToTemplateValue(const Json& json);

}  // namespace spin
