#include "server/openai/chat_request.h"

#include <utility>

#include "server/error_mapping.h"
#include "server/openai/chat_messages.h"
#include "server/openai/parse_helpers.h"
#include "server/openai/template_value.h"

namespace spin {
namespace {

absl::Status ReadLogprobs(const Json& body, SamplingParams& sampling) {
  bool wanted = false;
  std::optional<int64_t> top;
  SPIN_RETURN_IF_ERROR(ReadBool(body, "logprobs", wanted));
  SPIN_RETURN_IF_ERROR(ReadInt(body, "top_logprobs", 0, kMaxLogprobs, top));
  if (!wanted && top.value_or(0) > 0) {
    return BadParam("top_logprobs", "Invalid 'top_logprobs': it needs 'logprobs' to be true.");
  }
  if (wanted) sampling.logprobs = static_cast<int32_t>(top.value_or(0));
  return absl::OkStatus();
}

absl::Status CheckModalities(const Json& body) {
  const Json* modalities = FindMember(body, "modalities");
  if (modalities == nullptr || *modalities == Json::array({"text"})) return absl::OkStatus();
  return UnsupportedParam("modalities",
                          "Unsupported parameter: this server has the modality 'text' only.");
}

absl::StatusOr<jinja::Dict> TemplateArguments(const Json& body) {
  jinja::Dict variables;
  const Json* arguments = FindMember(body, "chat_template_kwargs");
  if (arguments == nullptr) return variables;
  if (!arguments->is_object()) {
    return BadParam("chat_template_kwargs",
                    "Invalid 'chat_template_kwargs': it must be an object.");
  }
  for (const auto& [key, value] : arguments->items()) variables.Set(key, ToTemplateValue(value));
  return variables;
}

}  // namespace

absl::StatusOr<ChatPrompt> ParseChatPrompt(const Json& body, const ModelInfo& model) {
  ChatPrompt prompt;
  bool add_generation_prompt = true;
  SPIN_RETURN_IF_ERROR(RefuseMembers(body, {"chat_template"}));
  SPIN_RETURN_IF_ERROR(ReadBool(body, "continue_final_message", prompt.continue_final_message));
  if (prompt.continue_final_message) add_generation_prompt = false;
  SPIN_RETURN_IF_ERROR(ReadBool(body, "add_generation_prompt", add_generation_prompt));
  if (prompt.continue_final_message && add_generation_prompt) {
    return BadParam("continue_final_message",
                    "'continue_final_message' and 'add_generation_prompt' cannot both be true.");
  }
  SPIN_RETURN_IF_ERROR(ReadBool(body, "add_special_tokens", prompt.add_special_tokens));
  SPIN_ASSIGN_OR_RETURN(const Json messages, NormalizeMessages(body));
  SPIN_ASSIGN_OR_RETURN(const Json tools, ParseTools(body));
  if (prompt.continue_final_message) {
    const Json& content = messages.back()["content"];
    if (!content.is_string()) {
      return BadParam("continue_final_message", "The final message has no text to continue.");
    }
    prompt.final_message = content.get<std::string>();
  }
  SPIN_ASSIGN_OR_RETURN(jinja::Dict variables, TemplateArguments(body));
  variables.Set("messages", ToTemplateValue(messages));
  variables.Set("tools", ToTemplateValue(tools));
  variables.Set("documents", jinja::Value::None());
  variables.Set("add_generation_prompt", jinja::Value::Bool(add_generation_prompt));
  variables.Set("bos_token", jinja::Value::String(model.bos_token));
  variables.Set("eos_token", jinja::Value::String(model.eos_token));
  prompt.variables = jinja::Value::Map(std::move(variables));
  return prompt;
}

absl::StatusOr<ChatRequest> ParseChatRequest(const Json& body, const ModelInfo& model) {
  ChatRequest request;
  SPIN_ASSIGN_OR_RETURN(request.common,
                        ParseCommonRequest(body, model, /*allow_zero_max_tokens=*/false));
  SPIN_RETURN_IF_ERROR(CheckModalities(body));
  SPIN_RETURN_IF_ERROR(ReadLogprobs(body, request.common.sampling));
  SPIN_ASSIGN_OR_RETURN(request.prompt, ParseChatPrompt(body, model));
  return request;
}

}  // namespace spin
