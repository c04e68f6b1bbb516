#include "engine/sampling_row.h"

#include <algorithm>

#include "common/check.h"
#include "common/random.h"

namespace spin {
namespace {

// Counters of Philox's high half: one family of draws each.
constexpr uint64_t kRequestDraw = 1;
constexpr uint64_t kSequenceDraw = 2;

uint64_t Draw(uint64_t key, uint64_t counter, uint64_t family) {
  const auto bits = Philox(key, counter, family);
  return (uint64_t{bits[0]} << 32) | bits[1];
}

void AddStopToken(SamplingRow& row, int32_t token) {
  const int32_t* end = row.stop_tokens + row.num_stop_tokens;
  if (std::find<const int32_t*>(row.stop_tokens, end, token) != end) return;
  SPIN_CHECK_LT(row.num_stop_tokens, kMaxStopTokens);
  row.stop_tokens[row.num_stop_tokens++] = token;
}

}  // namespace

uint64_t RequestSeed(const SamplingParams& sampling, RequestId id, uint64_t engine_seed) {
  return sampling.seed.has_value() ? *sampling.seed : Draw(engine_seed, id.value, kRequestDraw);
}

uint64_t SequenceSeed(uint64_t request_seed, int32_t index) {
  if (index == 0) return request_seed;
  return Draw(request_seed, static_cast<uint64_t>(index), kSequenceDraw);
}

void FillSamplingRow(const SamplingParams& sampling, uint64_t seed, int32_t prompt_tokens,
                     std::span<const int32_t> eos_token_ids, SamplingRow& row) {
  row.temperature = static_cast<float>(sampling.temperature);
  row.top_p = static_cast<float>(sampling.top_p);
  row.min_p = static_cast<float>(sampling.min_p);
  row.top_k = std::max(sampling.top_k, 0);
  row.presence_penalty = static_cast<float>(sampling.presence_penalty);
  row.frequency_penalty = static_cast<float>(sampling.frequency_penalty);
  row.repetition_penalty = static_cast<float>(sampling.repetition_penalty);
  row.num_logprobs = sampling.logprobs.value_or(-1);
  row.seed = seed;
  row.prompt_tokens = prompt_tokens;
  row.min_tokens = sampling.min_tokens;

  row.num_stop_tokens = 0;
  if (!sampling.ignore_eos) {
    for (const int32_t token : eos_token_ids) AddStopToken(row, token);
  }
  for (const int32_t token : sampling.stop_token_ids) AddStopToken(row, token);

  SPIN_CHECK_LE(sampling.logit_bias.size(), static_cast<std::size_t>(kMaxLogitBias));
  row.num_bias = 0;
  for (const auto& [token, bias] : sampling.logit_bias) {
    row.bias_token[row.num_bias] = token;
    row.bias[row.num_bias] = bias;
    ++row.num_bias;
  }
}

}  // namespace spin
