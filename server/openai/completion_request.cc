#include "server/openai/completion_request.h"

#include "server/error_mapping.h"
#include "server/openai/parse_helpers.h"

namespace spin {
namespace {

constexpr int32_t kDefaultMaxTokens = 16;

absl::Status ReadPrompts(const Json& body, const ModelInfo& model, CompletionRequest& request) {
  const Json* prompt = FindMember(body, "prompt");
  if (prompt == nullptr) return MissingParam("prompt");
  if (prompt->is_string()) {
    request.prompts.emplace_back(prompt->get<std::string>());
    return absl::OkStatus();
  }
  if (!prompt->is_array() || prompt->empty()) {
    return BadParam(
        "prompt",
        "Invalid 'prompt': it must be a string, a list of strings, a list of token ids, or "
        "a list of lists of token ids, and not empty.");
  }
  if (prompt->front().is_number()) {
    std::vector<int32_t> ids;
    SPIN_RETURN_IF_ERROR(ReadTokenIds(*prompt, "prompt", model.vocab_size, ids));
    request.prompts.emplace_back(std::move(ids));
    return absl::OkStatus();
  }
  if (prompt->size() > kMaxPrompts) {
    return BadParam("prompt", "Invalid 'prompt': %d prompts, but at most %d are allowed.",
                    prompt->size(), kMaxPrompts);
  }
  for (const Json& item : *prompt) {
    if (item.is_string()) {
      request.prompts.emplace_back(item.get<std::string>());
      continue;
    }
    std::vector<int32_t> ids;
    SPIN_RETURN_IF_ERROR(ReadTokenIds(item, "prompt", model.vocab_size, ids));
    request.prompts.emplace_back(std::move(ids));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletionRequest(const Json& body, const ModelInfo& model) {
  CompletionRequest request;
  SPIN_RETURN_IF_ERROR(ReadBool(body, "echo", request.echo));
  SPIN_ASSIGN_OR_RETURN(request.common, ParseCommonRequest(body, model, request.echo));
  SamplingParams& sampling = request.common.sampling;
  SPIN_RETURN_IF_ERROR(RefuseMembers(body, {"suffix"}));
  SPIN_RETURN_IF_ERROR(ReadPrompts(body, model, request));
  if (request.prompts.size() * static_cast<std::size_t>(sampling.n) > kMaxChoices) {
    return BadParam("n", "Invalid 'n': %d prompts times %d choices is more than %d.",
                    request.prompts.size(), sampling.n, kMaxChoices);
  }
  std::optional<int64_t> logprobs;
  SPIN_RETURN_IF_ERROR(ReadInt(body, "logprobs", 0, kMaxLogprobs, logprobs));
  if (logprobs.has_value()) sampling.logprobs = static_cast<int32_t>(*logprobs);
  SPIN_RETURN_IF_ERROR(ReadBool(body, "add_special_tokens", request.add_special_tokens));
  request.max_tokens_defaulted = !sampling.max_tokens.has_value();
  if (request.max_tokens_defaulted) {
    sampling.max_tokens = std::max(kDefaultMaxTokens, sampling.min_tokens);
  }
  return request;
}

}  // namespace spin
