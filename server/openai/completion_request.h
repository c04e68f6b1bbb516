// The body of POST /v1/completions as a native request.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "server/openai/common_request.h"

namespace spin {

struct CompletionRequest {
  CommonRequest
      common;  // sampling.max_tokens is set: 16 where the client says nothing (OpenAI's default)
  bool max_tokens_defaulted = false;
  std::vector<std::variant<std::string, std::vector<int32_t>>>
      prompts;  // text or token ids, at least one
  bool echo = false;
  bool add_special_tokens = true;
};

inline constexpr std::size_t kMaxPrompts = 256;   // of one request
inline constexpr std::size_t kMaxChoices = 1024;  // prompts x n

absl::StatusOr<CompletionRequest> ParseCompletionRequest(const Json& body, const ModelInfo& model);

}  // namespace spin
