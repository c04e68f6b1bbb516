// What an answer needs to know beyond the engine's output: names, what was asked, and the state of its choices.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "models/tokenizer/tokenizer.h"

namespace spin {

struct PromptInfo {
  int64_t num_tokens = 0;
  std::vector<int32_t> tokens;  // kept only where the answer shows them
  std::string text;             // echo
  std::vector<SampledToken>
      logprobs;  // when asked, with the first output: entry i belongs to token i + 1
  int32_t cached_tokens = 0;
  std::optional<RequestSummary> summary;  // when asked, with the last output
};

// Constant after the requests were submitted, except for what PromptInfo says.
struct ResponsePlan {
  std::string id;  // "cmpl-...", "chatcmpl-..."
  int64_t created = 0;
  std::string model;
  std::string system_fingerprint;
  const Tokenizer* tokenizer = nullptr;
  std::vector<PromptInfo> prompts;
  int32_t choices_per_prompt = 1;
  bool one_sequence =
      false;  // greedy: the engine computes one sequence a prompt, every choice shows it

  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  bool return_token_ids = false;
  bool skip_special_tokens = true;
  std::optional<int32_t> logprobs;  // alternatives of each generated token
  std::optional<int32_t>
      prompt_logprobs;  // the client's own wish; echo with logprobs asks for them as well
  bool echo = false;    // completions

  bool keeps_tokens() const { return logprobs.has_value() || return_token_ids; }
};

// One choice: what arrived and was not shown yet (streaming), or all of it.
struct ChoiceState {
  int32_t index = 0;
  std::size_t prompt = 0;  // index into ResponsePlan::prompts
  std::string text;
  std::vector<SampledToken> tokens;  // only if ResponsePlan::keeps_tokens()
  FinishReason finish = FinishReason::kNone;
  std::string stop_string;
  std::optional<int32_t> stop_token;

  int64_t num_tokens = 0;   // generated so far
  bool opened = false;      // its first piece was written
  bool closed = false;      // streaming: its last piece was written
  int64_t text_offset = 0;  // completions with logprobs: characters before the next token
};

}  // namespace spin
