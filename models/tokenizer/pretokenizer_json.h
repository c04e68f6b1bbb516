// The "pre_tokenizer" of a tokenizer.json.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "common/status.h"
#include "models/tokenizer/pretokenizer.h"

namespace spin {

// Split, Digits, ByteLevel, and Sequences of them; ByteLevel must be there once and last, for BPE
// over bytes needs it.
absl::StatusOr<Pretokenizer> ParsePretokenizer(const nlohmann::json& json);

}  // namespace spin
