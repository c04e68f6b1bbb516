// POST /tokenize and POST /detokenize, in vLLM's shapes.
//
//   /tokenize    {model?, prompt, add_special_tokens = true, return_token_strs = false}, or messages as for chat
//                -> {"count","max_model_len","tokens","token_strs"}
//   /detokenize  {model?, tokens} -> {"prompt"}
#pragma once

#include <string_view>

#include "server/http/http_message.h"
#include "server/serving_context.h"

namespace spin {

absl::StatusOr<HttpResponse> HandleTokenize(const ServingContext& context, std::string_view body);
absl::StatusOr<HttpResponse> HandleDetokenize(const ServingContext& context, std::string_view body);

}  // namespace spin
