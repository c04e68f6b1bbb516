// The messages of a chat request, checked and brought into the form that chat templates expect.
//
//   developer -> system; a list of text parts -> one string (parts on lines of their own); the arguments of an
//   assistant's tool calls, which OpenAI has as a JSON text -> the object itself. Members that we do not know pass
//   through.
#pragma once

#include "server/openai/json_body.h"

namespace spin {

// A JSON list of messages whose content is a string, or null where only tool calls are there. Errors name the member
// ("messages[2].role").
absl::StatusOr<Json> NormalizeMessages(const Json& body);

// The tools as they go into the template (null when absent). tool_choice other than none and auto is refused.
absl::StatusOr<Json> ParseTools(const Json& body);

}  // namespace spin
