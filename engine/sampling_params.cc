#include "engine/sampling_params.h"

#include "kernels/params.h"

namespace spin {
namespace {

absl::Status CheckRange(const char* field, double value, const NumberRange& range) {
  if (range.Contains(value)) return absl::OkStatus();
  if (range.min_excluded) {
    return InvalidArgument("%s: must be above %g and at most %g, not %g", field, range.min,
                           range.max, value);
  }
  return InvalidArgument("%s: must be between %g and %g, not %g", field, range.min, range.max,
                         value);
}

absl::Status CheckToken(const char* field, int32_t token, int32_t vocab_size) {
  if (token >= 0 && token < vocab_size) return absl::OkStatus();
  return InvalidArgument("%s: %d is no token id of this model (0 to %d)", field, token,
                         vocab_size - 1);
}

absl::Status CheckDistribution(const SamplingParams& p, int32_t vocab_size) {
  SPIN_RETURN_IF_ERROR(CheckRange("temperature", p.temperature, kTemperatureRange));
  SPIN_RETURN_IF_ERROR(CheckRange("top_p", p.top_p, kTopPRange));
  if (p.top_k < -1) {
    return InvalidArgument("top_k: must be -1 or 0 (off) or at least 1, not %d", p.top_k);
  }
  SPIN_RETURN_IF_ERROR(CheckRange("min_p", p.min_p, kMinPRange));
  SPIN_RETURN_IF_ERROR(CheckRange("presence_penalty", p.presence_penalty, kPenaltyRange));
  SPIN_RETURN_IF_ERROR(CheckRange("frequency_penalty", p.frequency_penalty, kPenaltyRange));
  SPIN_RETURN_IF_ERROR(
      CheckRange("repetition_penalty", p.repetition_penalty, kRepetitionPenaltyRange));
  if (p.logit_bias.size() > static_cast<std::size_t>(kMaxLogitBias)) {
    return InvalidArgument("logit_bias: at most %d entries are allowed, not %d", kMaxLogitBias,
                           p.logit_bias.size());
  }
  for (const auto& [token, bias] : p.logit_bias) {
    SPIN_RETURN_IF_ERROR(CheckToken("logit_bias", token, vocab_size));
    SPIN_RETURN_IF_ERROR(CheckRange("logit_bias", bias, kLogitBiasRange));
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const SamplingParams& p, int32_t vocab_size) {
  if (p.stop.size() > kMaxStopStrings) {
    return InvalidArgument("stop: at most %d strings are allowed, not %d", kMaxStopStrings,
                           p.stop.size());
  }
  for (const std::string& stop : p.stop) {
    if (stop.empty()) return InvalidArgument("stop: an empty string would match everywhere");
    if (stop.size() > kMaxStopStringBytes) {
      return InvalidArgument("stop: a string of %d bytes is longer than the limit of %d",
                             stop.size(), kMaxStopStringBytes);
    }
  }
  if (p.stop_token_ids.size() > static_cast<std::size_t>(kMaxStopTokens)) {
    return InvalidArgument("stop_token_ids: at most %d are allowed, not %d", kMaxStopTokens,
                           p.stop_token_ids.size());
  }
  for (const int32_t token : p.stop_token_ids) {
    SPIN_RETURN_IF_ERROR(CheckToken("stop_token_ids", token, vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckLengths(const SamplingParams& p) {
  if (p.max_tokens.has_value()) {
    if (*p.max_tokens < 0) {
      return InvalidArgument("max_tokens: must be at least 1, not %d", *p.max_tokens);
    }
    if (*p.max_tokens == 0 && !p.prompt_logprobs.has_value()) {
      return InvalidArgument("max_tokens: 0 is allowed only where the prompt itself is scored");
    }
  }
  if (p.min_tokens < 0) {
    return InvalidArgument("min_tokens: must be at least 0, not %d", p.min_tokens);
  }
  if (p.max_tokens.has_value() && p.min_tokens > *p.max_tokens) {
    return InvalidArgument("min_tokens: %d is more than max_tokens (%d)", p.min_tokens,
                           *p.max_tokens);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SamplingParams::Validate(int32_t vocab_size) const {
  if (n < 1 || n > kMaxN) return InvalidArgument("n: must be between 1 and %d, not %d", kMaxN, n);
  SPIN_RETURN_IF_ERROR(CheckDistribution(*this, vocab_size));
  SPIN_RETURN_IF_ERROR(CheckLengths(*this));
  SPIN_RETURN_IF_ERROR(CheckStops(*this, vocab_size));
  constexpr NumberRange kAlternatives = {.min = 0, .max = kMaxLogprobs};
  SPIN_RETURN_IF_ERROR(CheckRange("logprobs", logprobs.value_or(0), kAlternatives));
  SPIN_RETURN_IF_ERROR(CheckRange("prompt_logprobs", prompt_logprobs.value_or(0), kAlternatives));
  return absl::OkStatus();
}

}  // namespace spin
