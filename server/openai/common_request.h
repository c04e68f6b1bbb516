// What completions and chat completions have in common: the model, how to sample, what the answer holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/request.h"
#include "engine/sampling_params.h"
#include "server/openai/json_body.h"
#include "server/serving_context.h"

namespace spin {

struct CommonRequest {
  std::string model;  // as asked; empty: the one that is served
  SamplingParams
      sampling;  // max_tokens as asked (absent: absent); logprobs are the caller's business
  SparseRequest sparse;
  int32_t priority = 0;
  bool stream = false;
  bool include_usage = false;           // stream_options
  bool continuous_usage_stats = false;  // stream_options: usage on every chunk
  bool return_token_ids = false;
  bool spin_usage = false;  // usage.spin in the answer; in a stream it implies include_usage
  std::optional<int32_t>
      truncate_prompt_tokens;  // keep the last so many; -1: what the context holds
};

// Reads the common members. Absent sampling members take the model's defaults. `max_tokens_name` says which member
// bounds the completion in error messages. Members nobody knows are ignored, those we cannot honour are refused.
absl::StatusOr<CommonRequest> ParseCommonRequest(const Json& body, const ModelInfo& model,
                                                 bool allow_zero_max_tokens);

// NotFound (404, model_not_found) when `name` is neither empty nor served.
absl::Status CheckModelName(const std::string& name, const ModelInfo& model);

}  // namespace spin
