// Typed reading of JSON members. A member that is null counts as absent; a number without a fraction counts as an
// integer. Every error names its member as OpenAI's `param` does.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "engine/sampling_params.h"
#include "server/openai/json_body.h"

namespace spin {

// Null when absent or null. REQUIRES: `object` is an object.
const Json* FindMember(const Json& object, std::string_view name);

// Leave `out` as it is when the member is absent. `param` is the path in errors; empty: the name itself.
absl::Status ReadNumber(const Json& object, std::string_view name, const NumberRange& range,
                        std::optional<double>& out);
absl::Status ReadInt(const Json& object, std::string_view name, int64_t min, int64_t max,
                     std::optional<int64_t>& out);
absl::Status ReadBool(const Json& object, std::string_view name, bool& out);
absl::Status ReadString(const Json& object, std::string_view name, std::string& out);

// The integer a value stands for (1, 1.0), or nothing.
std::optional<int64_t> IntegerOf(const Json& value);

// A list of token ids in [0, vocab_size).
absl::Status ReadTokenIds(const Json& list, std::string_view param, int32_t vocab_size,
                          std::vector<int32_t>& out);

// An error for each of `names` that is present.
absl::Status RefuseMembers(const Json& object, std::initializer_list<std::string_view> names);

}  // namespace spin
