// Bodies of requests as the handlers parse them, against a small model: what the tests of server/openai share.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "server/openai/chat_request.h"
#include "server/openai/completion_request.h"
#include "server/openai/prompt_builder.h"
#include "tests/server/serving_fakes.h"

namespace spin::testing {

inline absl::StatusOr<ChatRequest> ParseChat(const std::string& body) {
  const TestServing serving;
  SPIN_ASSIGN_OR_RETURN(const Json json, ParseJsonBody(body));
  return ParseChatRequest(json, serving.context.model);
}

// One message, and `members`.
inline absl::StatusOr<ChatRequest> ParseChatWith(const std::string& members) {
  return ParseChat(R"({"messages":[{"role":"user","content":"Hi"}],)" + members + "}");
}

// The prompt that a chat's body makes, as text.
inline absl::StatusOr<std::string> ChatPrompt(const std::string& body) {
  const TestServing serving;
  SPIN_ASSIGN_OR_RETURN(const ChatRequest request, ParseChat(body));
  SPIN_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                        TokenizeChat(serving.context, request.prompt, /*must_fit=*/true));
  return serving.tokenizer.Decode(tokens, false);
}

inline ModelInfo TinyModel() {
  ModelInfo model;
  model.served_names = {"tiny"};
  model.max_model_len = 128;
  model.vocab_size = 1000;
  return model;
}

// A completion of one prompt, and `members`, which begin with a comma.
inline absl::StatusOr<CompletionRequest> ParseCompletionWith(const std::string& members,
                                                             const ModelInfo& model = TinyModel()) {
  SPIN_ASSIGN_OR_RETURN(const Json json, ParseJsonBody(R"({"prompt":"x")" + members + "}"));
  return ParseCompletionRequest(json, model);
}

}  // namespace spin::testing
