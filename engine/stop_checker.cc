#include "engine/stop_checker.h"

#include <algorithm>

#include "common/check.h"

namespace spin {
namespace {

bool Contains(std::span<const int32_t> tokens, int32_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

StopChecker::StopChecker(const Tokenizer* tokenizer, const SamplingParams& sampling,
                         std::span<const int32_t> eos_token_ids, int32_t max_tokens)
    : sampling_(sampling),
      eos_token_ids_(eos_token_ids),
      max_tokens_(max_tokens),
      decoder_(tokenizer, {.stop = sampling.stop,
                           .include_stop_in_output = sampling.include_stop_str_in_output,
                           .skip_special_tokens = sampling.skip_special_tokens}) {}

bool StopChecker::MeetsStopToken(int32_t token, SequenceDelta& delta) const {
  if (num_tokens_ <= sampling_.min_tokens) return false;
  if (!sampling_.ignore_eos && Contains(eos_token_ids_, token)) return true;
  if (!Contains(sampling_.stop_token_ids, token)) return false;
  delta.stop_token = token;
  return true;
}

void StopChecker::Push(const SampledToken& token, SequenceDelta& delta) {
  SPIN_CHECK(!stopped_);
  ++num_tokens_;
  delta.tokens.push_back(token);
  const bool stop_token = MeetsStopToken(token.token, delta);
  if (!stop_token || sampling_.include_stop_str_in_output) {
    IncrementalDecoder::Piece piece = decoder_.Push(token.token);
    delta.text += piece.text;
    if (piece.stop_match.has_value() && !stop_token) {
      delta.stop_string = *std::move(piece.stop_match);
      delta.finish = FinishReason::kStop;  // nothing is held back after a match
      stopped_ = true;
      return;
    }
  }
  if (stop_token) {
    Finish(FinishReason::kStop, delta);
  } else if (num_tokens_ >= max_tokens_) {
    Finish(FinishReason::kLength, delta);
  }
}

void StopChecker::Finish(FinishReason reason, SequenceDelta& delta) {
  SPIN_CHECK(!stopped_);
  stopped_ = true;
  delta.text += decoder_.Flush();
  delta.finish = reason;
}

void StopChecker::LimitTokens(int32_t max_tokens) {
  SPIN_CHECK_GE(max_tokens, num_tokens_);
  max_tokens_ = std::min(max_tokens_, max_tokens);
}

}  // namespace spin
