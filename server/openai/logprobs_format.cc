#include "server/openai/logprobs_format.h"

#include <absl/strings/str_format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace spin {
namespace {

double Finite(float logprob) {
  return std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0;
}

Json BytesOf(const Tokenizer* tokenizer, int32_t token) {
  if (tokenizer == nullptr) return nullptr;
  Json bytes = Json::array();
  for (const char c : tokenizer->TokenBytes(token)) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

int NumTop(const SampledToken& token, int32_t wanted) {
  return std::min(token.num_top, wanted);
}

// Most probable first; the chosen token last where it is none of them.
Json TopLogprobs(const ResponsePlan& plan, const SampledToken& token) {
  Json top = Json::object();
  for (int i = 0; i < NumTop(token, *plan.logprobs); ++i) {
    const std::string text = TokenText(plan.tokenizer, token.top_token[i]);
    if (!top.contains(text)) top[text] = Finite(token.top_logprob[i]);
  }
  const std::string text = TokenText(plan.tokenizer, token.token);
  if (!top.contains(text)) top[text] = Finite(token.logprob);
  return top;
}

struct CompletionLists {
  Json text_offset = Json::array();
  Json token_logprobs = Json::array();
  Json tokens = Json::array();
  Json top_logprobs = Json::array();

  void Add(const ResponsePlan& plan, int32_t id, const SampledToken* sampled, int64_t& offset) {
    text_offset.push_back(offset);
    tokens.push_back(TokenText(plan.tokenizer, id));
    token_logprobs.push_back(sampled != nullptr ? Json(Finite(sampled->logprob)) : Json(nullptr));
    top_logprobs.push_back(sampled != nullptr ? TopLogprobs(plan, *sampled) : Json(nullptr));
    offset += TokenCharacters(plan, id);
  }
};

Json ChatEntry(const ResponsePlan& plan, int32_t token, float logprob) {
  Json entry;
  entry["token"] = TokenText(plan.tokenizer, token);
  entry["logprob"] = Finite(logprob);
  entry["bytes"] = BytesOf(plan.tokenizer, token);
  return entry;
}

}  // namespace

std::string TokenText(const Tokenizer* tokenizer, int32_t token) {
  if (tokenizer == nullptr) return absl::StrFormat("token_id:%d", token);
  const std::string_view bytes = tokenizer->TokenBytes(token);
  if (IsUtf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char c : bytes) text += absl::StrFormat("\\x%02x", static_cast<unsigned char>(c));
  return text;
}

int64_t TokenCharacters(const ResponsePlan& plan, int32_t token) {
  if (plan.tokenizer == nullptr) return 0;
  if (plan.skip_special_tokens && plan.tokenizer->IsSpecial(token)) return 0;
  const std::string_view bytes = plan.tokenizer->TokenBytes(token);
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

Json FormatCompletionLogprobs(const ResponsePlan& plan, const PromptInfo* prompt,
                              std::span<const SampledToken> tokens, int64_t& offset) {
  CompletionLists lists;
  if (prompt != nullptr) {
    for (std::size_t i = 0; i < prompt->tokens.size(); ++i) {
      const bool known = i > 0 && i - 1 < prompt->logprobs.size();
      lists.Add(plan, prompt->tokens[i], known ? &prompt->logprobs[i - 1] : nullptr, offset);
    }
  }
  for (const SampledToken& token : tokens) lists.Add(plan, token.token, &token, offset);
  Json result;
  result["text_offset"] = std::move(lists.text_offset);
  result["token_logprobs"] = std::move(lists.token_logprobs);
  result["tokens"] = std::move(lists.tokens);
  result["top_logprobs"] = std::move(lists.top_logprobs);
  return result;
}

Json FormatChatLogprobs(const ResponsePlan& plan, std::span<const SampledToken> tokens) {
  Json content = Json::array();
  for (const SampledToken& token : tokens) {
    Json entry = ChatEntry(plan, token.token, token.logprob);
    Json top = Json::array();
    for (int i = 0; i < NumTop(token, *plan.logprobs); ++i) {
      top.push_back(ChatEntry(plan, token.top_token[i], token.top_logprob[i]));
    }
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  Json result;
  result["content"] = std::move(content);
  result["refusal"] = nullptr;
  return result;
}

Json FormatPromptLogprobs(const ResponsePlan& plan, const PromptInfo& prompt) {
  Json list = Json::array({nullptr});
  for (const SampledToken& token : prompt.logprobs) {
    Json entries = Json::object();
    const auto add = [&](int32_t id, float logprob, Json rank) {
      Json entry;
      entry["logprob"] = Finite(logprob);
      entry["rank"] = std::move(rank);
      entry["decoded_token"] = TokenText(plan.tokenizer, id);
      entries.emplace(std::to_string(id), std::move(entry));
    };
    for (int i = 0; i < NumTop(token, plan.prompt_logprobs.value_or(0)); ++i) {
      add(token.top_token[i], token.top_logprob[i], i + 1);
    }
    add(token.token, token.logprob, nullptr);
    list.push_back(std::move(entries));
  }
  return list;
}

Json FormatTokenIds(std::span<const SampledToken> tokens) {
  Json ids = Json::array();
  for (const SampledToken& token : tokens) ids.push_back(token.token);
  return ids;
}

}  // namespace spin
