// JSON in and out: the only place where a JSON text is parsed, and where nlohmann's exceptions end.
//
// Objects keep the order of their members: a tool's schema goes into the prompt as the client wrote it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/status.h"

namespace spin {

using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 100;

// A JSON object. InvalidArgument says where the text is wrong (line and column). Nesting is bounded by
// kMaxJsonDepth, and so is the work that objects with very many members make (their order costs a linear search a
// member).
absl::StatusOr<Json> ParseJsonBody(std::string_view text);

// Any JSON value, likewise.
absl::StatusOr<Json> ParseJson(std::string_view text);

// One line; never throws: invalid UTF-8 becomes U+FFFD.
std::string DumpJson(const Json& value);

// True for well-formed UTF-8 (no surrogates, no overlong forms).
bool IsUtf8(std::string_view text);

}  // namespace spin
