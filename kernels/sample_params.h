// Parameters of sampling and of log-probabilities. Conventions: params.h.
#pragma once

#include <cstdint>

#include "kernels/batch.h"

namespace spin {

inline constexpr int32_t kMaxLogprobs = 20;     // alternatives reported a token
inline constexpr int32_t kMaxLogitBias = 1024;  // entries of logit_bias a request
inline constexpr int32_t kMaxStopTokens = 32;   // token ids that end a sequence

// What one row samples with; an array [max_rows] in device memory, an entry written when its sequence starts.
struct SamplingRow {
  float temperature = 1;  // 0: greedy
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;  // 0: off
  float presence_penalty = 0, frequency_penalty = 0, repetition_penalty = 1;
  int32_t num_logprobs = -1;  // -1: none; else 0..kMaxLogprobs alternatives beside the chosen token
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;  // position of the first generated token
  int32_t min_tokens = 0;     // stop tokens are banned before so many generated tokens
  int32_t num_stop_tokens = 0;
  int32_t num_bias = 0;
  int32_t stop_tokens[kMaxStopTokens] = {};
  int32_t bias_token[kMaxLogitBias] = {};
  float bias[kMaxLogitBias] = {};
};

// What the host reads of one sampled token; in pinned memory.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;  // of the model's own distribution: before bias, penalties and temperature
  int32_t num_top = 0;
  int32_t top_token[kMaxLogprobs] = {};  // most probable first, ties by lower id
  float top_logprob[kMaxLogprobs] = {};
};

// Order: log-probabilities of the raw logits; stop-token ban (min_tokens); logit bias; repetition, presence,
// frequency penalties; greedy, or temperature, top_k, top_p, min_p, then one draw: Philox(seed, generated index).
// The generated index of the new token is position[row] + 1 - prompt_tokens, where position[row] is that of the
// token just processed. The token goes to token[row], position[row] grows by one, `history` counts it.
struct SampleParams {
  DecodeRows decode;              // which rows; logits row b belongs to place b
  const float* logits = nullptr;  // [max_batch][vocab]
  int32_t vocab = 0;
  const SamplingRow* sampling = nullptr;  // [max_rows]
  // [max_rows][vocab]: bit 31 = token occurs in the prompt, low bits = times generated. Kept only for rows with
  // penalties; cleared when their sequence starts.
  uint32_t* history = nullptr;
  SampledToken* out = nullptr;  // [max_batch] pinned
};

// Log-probability of given tokens under the model (prompt log-probabilities), with alternatives.
struct TokenLogprobsParams {
  const float* logits = nullptr;    // [n][vocab]
  const int32_t* target = nullptr;  // [n]
  int32_t n = 0;
  int32_t vocab = 0;
  int32_t num_top = 0;
  SampledToken* out = nullptr;  // [n] pinned; token = target
};

}  // namespace spin
