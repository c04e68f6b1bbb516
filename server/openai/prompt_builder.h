// From what a client sent to the tokens that the engine reads, with the checks that need their number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/openai/chat_request.h"
#include "server/serving_context.h"

namespace spin {

// InvalidArgument (param `param`) where the model has no tokenizer. With `must_fit` a text that by its bytes alone is
// longer than the context is not tokenised, but refused as CheckContextLength does.
absl::StatusOr<std::vector<int32_t>> TokenizeText(const ServingContext& context,
                                                  std::string_view text, bool add_special_tokens,
                                                  std::string_view param, bool must_fit);

// Renders the chat template and tokenises. InvalidArgument where the model has no template or tokenizer, or where the
// template refuses the messages. `must_fit` as above.
absl::StatusOr<std::vector<int32_t>> TokenizeChat(const ServingContext& context,
                                                  const ChatPrompt& prompt, bool must_fit);

// Cuts a prompt to its last tokens as truncate_prompt_tokens asks.
void TruncatePrompt(std::optional<int32_t> truncate_prompt_tokens, int32_t max_model_len,
                    std::vector<int32_t>& tokens);

// OutOfRange (400, context_length_exceeded) where prompt and completion do not fit, with the sentence that OpenAI's
// clients look for. `param`: "prompt" or "messages". `max_tokens`: what the client asked for; absent: room for one is
// enough.
absl::Status CheckContextLength(int64_t prompt_tokens, std::optional<int64_t> max_tokens,
                                int64_t max_model_len, std::string_view param);

}  // namespace spin
