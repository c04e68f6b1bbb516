// The body of POST /v1/chat/completions as a native request.
#pragma once

#include <string>

#include "models/jinja/value.h"
#include "server/openai/common_request.h"

namespace spin {

// What the chat template is rendered with; /tokenize uses it too.
struct ChatPrompt {
  jinja::Value variables;
  bool continue_final_message = false;
  std::string final_message;        // its content, when continue_final_message
  bool add_special_tokens = false;  // the template writes its own
};

struct ChatRequest {
  CommonRequest common;  // sampling.logprobs is set when log-probabilities are asked
  ChatPrompt prompt;
};

absl::StatusOr<ChatPrompt> ParseChatPrompt(const Json& body, const ModelInfo& model);
absl::StatusOr<ChatRequest> ParseChatRequest(const Json& body, const ModelInfo& model);

}  // namespace spin
