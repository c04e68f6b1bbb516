// Log-probabilities in OpenAI's two shapes, and vLLM's prompt_logprobs.
//
// A token's text is what its bytes say; a token that is only part of a character is written "bytes:\xe2\x82" (as OpenAI
// does), and "token_id:7" where the model has no tokenizer. JSON has no infinity: -inf is -9999.
#pragma once

#include <span>
#include <string>

#include "server/openai/json_body.h"
#include "server/openai/response_plan.h"

namespace spin {

std::string TokenText(const Tokenizer* tokenizer, int32_t token);

// Characters that `token` begins in the text of an answer (special tokens that are left out: none).
int64_t TokenCharacters(const ResponsePlan& plan, int32_t token);

// {"text_offset","token_logprobs","tokens","top_logprobs"}. `prompt` (may be null) comes first: its first token has
// null. `offset` moves on by the characters of what was written.
Json FormatCompletionLogprobs(const ResponsePlan& plan, const PromptInfo* prompt,
                              std::span<const SampledToken> tokens, int64_t& offset);

// {"content":[{"token","logprob","bytes","top_logprobs"}],"refusal":null}.
Json FormatChatLogprobs(const ResponsePlan& plan, std::span<const SampledToken> tokens);

// [null, {"<id>": {"logprob","rank","decoded_token"}, ...}, ...]; a rank is null where the token is none of the
// alternatives.
Json FormatPromptLogprobs(const ResponsePlan& plan, const PromptInfo& prompt);

// A list of plain ids.
Json FormatTokenIds(std::span<const SampledToken> tokens);

}  // namespace spin
