#include "server/openai/tokenize_handler.h"

#include <string>
#include <vector>

#include "server/error_mapping.h"
#include "server/openai/chat_request.h"
#include "server/openai/common_request.h"
#include "server/openai/json_response.h"
#include "server/openai/logprobs_format.h"
#include "server/openai/parse_helpers.h"
#include "server/openai/prompt_builder.h"

namespace spin {
namespace {

absl::StatusOr<Json> ParseBody(const ServingContext& context, std::string_view body) {
  SPIN_ASSIGN_OR_RETURN(Json json, ParseJsonBody(body));
  std::string model;
  SPIN_RETURN_IF_ERROR(ReadString(json, "model", model));
  SPIN_RETURN_IF_ERROR(CheckModelName(model, context.model));
  return json;
}

absl::StatusOr<std::vector<int32_t>> Tokens(const ServingContext& context, const Json& json) {
  if (FindMember(json, "messages") != nullptr) {
    SPIN_ASSIGN_OR_RETURN(const ChatPrompt prompt, ParseChatPrompt(json, context.model));
    return TokenizeChat(context, prompt, /*must_fit=*/false);
  }
  if (FindMember(json, "prompt") == nullptr) return MissingParam("prompt");
  std::string text;
  bool add_special_tokens = true;
  SPIN_RETURN_IF_ERROR(ReadString(json, "prompt", text));
  SPIN_RETURN_IF_ERROR(ReadBool(json, "add_special_tokens", add_special_tokens));
  return TokenizeText(context, text, add_special_tokens, "prompt", /*must_fit=*/false);
}

}  // namespace

absl::StatusOr<HttpResponse> HandleTokenize(const ServingContext& context, std::string_view body) {
  SPIN_ASSIGN_OR_RETURN(const Json json, ParseBody(context, body));
  bool return_token_strs = false;
  SPIN_RETURN_IF_ERROR(ReadBool(json, "return_token_strs", return_token_strs));
  SPIN_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, Tokens(context, json));
  Json result;
  result["count"] = tokens.size();
  result["max_model_len"] = context.model.max_model_len;
  result["tokens"] = tokens;
  result["token_strs"] = nullptr;
  if (return_token_strs) {
    result["token_strs"] = Json::array();
    for (const int32_t token : tokens) {
      result["token_strs"].push_back(TokenText(context.tokenizer, token));
    }
  }
  return JsonResponse(result);
}

absl::StatusOr<HttpResponse> HandleDetokenize(const ServingContext& context,
                                              std::string_view body) {
  SPIN_ASSIGN_OR_RETURN(const Json json, ParseBody(context, body));
  const Json* list = FindMember(json, "tokens");
  if (list == nullptr) return MissingParam("tokens");
  std::vector<int32_t> tokens;
  SPIN_RETURN_IF_ERROR(ReadTokenIds(*list, "tokens", context.model.vocab_size, tokens));
  if (context.tokenizer == nullptr) {
    return BadParam("tokens", "This model has no tokenizer: its tokens have no text.");
  }
  Json result;
  result["prompt"] = context.tokenizer->Decode(tokens, /*skip_special_tokens=*/false);
  return JsonResponse(result);
}

}  // namespace spin
