#include "tools/eval/text_task.h"

#include <algorithm>
#include <cctype>

#include "models/jinja/value.h"

namespace spin::eval {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> TextCodec::Encode(const TextSample& sample) const {
  if (folder_.chat_template == nullptr) {
    return folder_.tokenizer->Encode(sample.prompt + " " + sample.answer_prefix, true);
  }
  jinja::Dict message;
  message.Set("role", jinja::Value::String("user"));
  message.Set("content", jinja::Value::String(sample.prompt));
  jinja::Dict variables;
  variables.Set("messages", jinja::Value::List({jinja::Value::Map(std::move(message))}));
  variables.Set("add_generation_prompt", jinja::Value::Bool(true));
  variables.Set("enable_thinking", jinja::Value::Bool(false));  // Qwen3: answer at once
  variables.Set("bos_token", jinja::Value::String(folder_.bos_token));
  variables.Set("eos_token", jinja::Value::String(folder_.eos_token));
  SPIN_ASSIGN_OR_RETURN(const std::string text,
                        folder_.chat_template->Render(jinja::Value::Map(std::move(variables))));
  return folder_.tokenizer->Encode(text + sample.answer_prefix, false);
}

std::string TextCodec::Decode(std::span<const int32_t> tokens) const {
  return folder_.tokenizer->Decode(tokens, true);
}

double MatchAll(std::string_view answer, std::span<const std::string> references) {
  const std::string lower = Lower(answer);
  int64_t found = 0;
  for (const std::string& reference : references) {
    found += lower.find(Lower(reference)) != std::string::npos ? 1 : 0;
  }
  return references.empty() ? 0
                            : static_cast<double>(found) / static_cast<double>(references.size());
}

absl::StatusOr<TaskSample> FittedTask::Sample(int32_t context, uint64_t seed, int32_t index) const {
  const Random random = SampleRandom(name(), context, seed, index);
  const int32_t room = context - task_->max_new();
  TaskSample sample;
  sample.max_new = task_->max_new();
  TextSample text;
  // Takes the prompt of so much filler if it fits.
  const auto fits = [&](int32_t filler) -> absl::StatusOr<bool> {
    TextSample made = task_->Make(filler, context, random);
    SPIN_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, codec_.Encode(made));
    if (static_cast<int64_t>(tokens.size()) > room) return false;
    sample.prompt = std::move(tokens);
    text = std::move(made);
    return true;
  };
  int32_t low = task_->least_filler();
  SPIN_ASSIGN_OR_RETURN(bool fit, fits(low));
  if (!fit) return InvalidArgument("%s: a context of %d tokens is too short", name(), context);
  int32_t high = low;
  while (fit) {
    low = high;
    high *= 2;
    SPIN_ASSIGN_OR_RETURN(fit, fits(high));
  }
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    SPIN_ASSIGN_OR_RETURN(fit, fits(middle));
    (fit ? low : high) = middle;
  }
  sample.score = [codec = codec_,
                  references = std::move(text.references)](std::span<const int32_t> said) {
    return MatchAll(codec.Decode(said), references);
  };
  return sample;
}

}  // namespace spin::eval
