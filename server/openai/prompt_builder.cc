#include "server/openai/prompt_builder.h"

#include "server/error_mapping.h"

namespace spin {
namespace {

constexpr char kSpaces[] = " \t\n\r\f\v";

std::string_view StripLeft(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpaces);
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

std::string_view StripRight(std::string_view text) {
  const std::size_t last = text.find_last_not_of(kSpaces);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

// Cuts what the template wrote after the final message, as transformers' continue_final_message does.
absl::Status CutAfterFinalMessage(const std::string& message, std::string& text) {
  const std::string_view bare = StripRight(StripLeft(message));
  const std::size_t place = text.rfind(bare);
  if (place == std::string::npos) {
    return BadParam(
        "continue_final_message",
        "The final message does not appear in the chat after the template was applied, so it "
        "cannot be continued.");
  }
  const std::string_view whole = StripLeft(message);
  const bool kept_spaces = std::string_view(text).substr(place, whole.size()) == whole;
  text.resize(place + (kept_spaces ? whole.size() : bare.size()));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> TokenizeText(const ServingContext& context,
                                                  std::string_view text, bool add_special_tokens,
                                                  std::string_view param, bool must_fit) {
  if (context.tokenizer == nullptr) {
    return BadParam(param, "This model has no tokenizer: send the prompt as token ids.");
  }
  const auto max_model_len = static_cast<std::size_t>(context.model.max_model_len);
  const std::size_t most_bytes = max_model_len * context.tokenizer->max_token_bytes();
  if (must_fit && most_bytes > 0 && text.size() > most_bytes) {
    return WithParam(
        OutOfRange("This model's maximum context length is %d tokens. However, your %s has %d "
                   "bytes, and so many tokens hold at most %d. Please reduce the length of the %s.",
                   max_model_len, param, text.size(), most_bytes, param),
        param, kCodeContextLength);
  }
  return context.tokenizer->Encode(text, add_special_tokens);
}

absl::StatusOr<std::vector<int32_t>> TokenizeChat(const ServingContext& context,
                                                  const ChatPrompt& prompt, bool must_fit) {
  if (context.tokenizer == nullptr) {
    return BadParam(
        "messages",
        "This model has no tokenizer, so it cannot chat: use /v1/completions with token ids.");
  }
  if (context.chat_template == nullptr) {
    return BadParam("messages", "This model has no chat template: use /v1/completions.");
  }
  absl::StatusOr<std::string> text = context.chat_template->Render(prompt.variables);
  if (!text.ok()) {
    return BadParam("messages", "The chat template refused the request: %s",
                    MessageOf(text.status()));
  }
  if (prompt.continue_final_message) {
    SPIN_RETURN_IF_ERROR(CutAfterFinalMessage(prompt.final_message, *text));
  }
  return TokenizeText(context, *text, prompt.add_special_tokens, "messages", must_fit);
}

void TruncatePrompt(std::optional<int32_t> truncate_prompt_tokens, int32_t max_model_len,
                    std::vector<int32_t>& tokens) {
  if (!truncate_prompt_tokens.has_value()) return;
  const int32_t limit = *truncate_prompt_tokens < 0 ? max_model_len - 1 : *truncate_prompt_tokens;
  const auto keep = static_cast<std::size_t>(limit);
  if (tokens.size() > keep)
    tokens.erase(tokens.begin(), tokens.end() - static_cast<std::ptrdiff_t>(keep));
}

absl::Status CheckContextLength(int64_t prompt_tokens, std::optional<int64_t> max_tokens,
                                int64_t max_model_len, std::string_view param) {
  if (prompt_tokens == 0) return BadParam(param, "Invalid '%s': the prompt is empty.", param);
  const int64_t completion = max_tokens.value_or(1);
  if (prompt_tokens + completion <= max_model_len) return absl::OkStatus();
  const absl::Status status =
      prompt_tokens >= max_model_len || !max_tokens.has_value()
          ? OutOfRange(
                "This model's maximum context length is %d tokens. However, your %s resulted in %d "
                "tokens. Please reduce the length of the %s.",
                max_model_len, param, prompt_tokens, param)
          : OutOfRange(
                "This model's maximum context length is %d tokens. However, you requested %d "
                "tokens "
                "(%d in the %s, %d in the completion). Please reduce the length of the %s or "
                "completion.",
                max_model_len, prompt_tokens + completion, prompt_tokens, param, completion, param);
  return WithParam(status, param, kCodeContextLength);
}

}  // namespace spin
