// When a sequence stops, and what text of it may be sent.
//
// Order of the rules for each new token: the model's end-of-sequence tokens (unless ignore_eos),
// the request's stop tokens, its stop strings, then the length. A stop token counts as generated,
// but its text is left out unless include_stop_str_in_output asks for it. min_tokens holds back
// stop tokens (the device bans them too), not stop strings.
//
// One sequence owns one checker; engine thread.
#pragma once

#include <cstdint>
#include <span>

#include "engine/request.h"
#include "engine/sampling_params.h"
#include "models/tokenizer/incremental_decoder.h"
#include "models/tokenizer/tokenizer.h"

namespace spin {

class StopChecker {
 public:
  // `tokenizer` (null: token ids only), `sampling` and `eos_token_ids` outlive the checker.
  // `max_tokens` is the resolved limit: what the client gave, or what the context leaves.
  StopChecker(const Tokenizer* tokenizer, const SamplingParams& sampling,
              std::span<const int32_t> eos_token_ids, int32_t max_tokens);

  // Takes the next generated token: appends it and its text to `delta`, and sets why the sequence
  // stops, if it does. REQUIRES: not stopped yet.
  void Push(const SampledToken& token, SequenceDelta& delta);

  // Ends the sequence now with `reason`; the text held back goes into `delta`.
  void Finish(FinishReason reason, SequenceDelta& delta);

  // Lowers the length at which the sequence ends (memory has no room for more).
  void LimitTokens(int32_t max_tokens);

  int32_t max_tokens() const { return max_tokens_; }

 private:
  bool MeetsStopToken(int32_t token, SequenceDelta& delta) const;

  const SamplingParams& sampling_;
  std::span<const int32_t> eos_token_ids_;
  int32_t max_tokens_;
  int32_t num_tokens_ = 0;  // generated so far
  bool stopped_ = false;
  IncrementalDecoder decoder_;
};

}  // namespace spin
