// generation_config.json: the sampling defaults and end-of-sequence tokens that a model ships with.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace spin {

struct GenerationConfig {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::vector<int32_t> eos_token_ids;  // empty: config.json's
};

// Numbers as they stand: what can be sampled with is whoever uses them to say. InvalidArgument names the key.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json);

}  // namespace spin
