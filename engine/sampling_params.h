// How a request samples and when it stops. Validated once, where it enters.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"

namespace spin {

// What a parameter may be; `min` itself not where it is excluded.
struct NumberRange {
  double min = 0;
  double max = 0;
  bool min_excluded = false;

  // False for NaN, too.
  constexpr bool Contains(double value) const {
    return (min_excluded ? value > min : value >= min) && value <= max;
  }
};

inline constexpr NumberRange kTemperatureRange = {.min = 0, .max = 2};
inline constexpr NumberRange kTopPRange = {.min = 0, .max = 1, .min_excluded = true};
inline constexpr NumberRange kMinPRange = {.min = 0, .max = 1};
inline constexpr NumberRange kPenaltyRange = {.min = -2, .max = 2};  // presence, frequency
inline constexpr NumberRange kRepetitionPenaltyRange = {
    .min = 0, .max = 1000, .min_excluded = true};
inline constexpr NumberRange kLogitBiasRange = {.min = -100, .max = 100};

struct SamplingParams {
  int32_t n = 1;
  double temperature = 1.0;  // 0: greedy
  double top_p = 1.0;
  int32_t top_k = 0;  // 0 and -1: off
  double min_p = 0.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  double repetition_penalty = 1.0;
  std::optional<uint64_t> seed;  // absent: drawn from the engine's generator
  std::vector<std::pair<int32_t, float>> logit_bias;

  std::optional<int32_t> max_tokens;  // absent: what the context leaves
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;

  std::optional<int32_t> logprobs;         // alternatives a generated token, 0..20
  std::optional<int32_t> prompt_logprobs;  // alternatives a prompt token

  // InvalidArgument whose message begins with the offending field's OpenAI name and ": ".
  absl::Status Validate(int32_t vocab_size) const;
};

inline constexpr int32_t kMaxN = 128;
inline constexpr std::size_t kMaxStopStrings = 16;
inline constexpr std::size_t kMaxStopStringBytes = 1024;

}  // namespace spin
