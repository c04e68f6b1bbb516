#include "engine/request_check.h"

#include <algorithm>
#include <optional>

#include "common/check.h"
#include "engine/scheduler.h"

namespace spin {
namespace {

absl::Status CheckPrompt(const Request& request, int32_t vocab_size) {
  if (request.prompt.empty()) return InvalidArgument("prompt: must have at least one token");
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= vocab_size) {
      return InvalidArgument("prompt: %d is no token id of this model (0 to %d)", token,
                             vocab_size - 1);
    }
  }
  return absl::OkStatus();
}

// Clients recognise the first sentence word for word.
absl::Status ContextExceeded(int64_t context, int64_t prompt, int64_t completion) {
  return OutOfRange(
      "This model's maximum context length is %d tokens. However, you requested %d tokens (%d in "
      "the prompt, %d in the completion). Please reduce the length of the prompt or completion.",
      context, prompt + completion, prompt, completion);
}

}  // namespace

int32_t MaxModelLen(const EngineOptions& options, const ExecutorLimits& limits) {
  if (options.max_model_len <= 0) return limits.max_model_len;
  return std::min(options.max_model_len, limits.max_model_len);
}

absl::StatusOr<ResolvedRequest> CheckRequest(const Request& request, const EngineOptions& options,
                                             const ExecutorLimits& limits,
                                             const KvCacheManager& memory, bool has_tokenizer) {
  const SamplingParams& sampling = request.sampling;
  SPIN_RETURN_IF_ERROR(sampling.Validate(limits.vocab_size));
  SPIN_RETURN_IF_ERROR(CheckPrompt(request, limits.vocab_size));
  const int32_t most_sequences = Scheduler::MaxSequences(options, limits);
  if (sampling.n > most_sequences) {
    return InvalidArgument("n: this server runs at most %d sequences at once, not %d",
                           most_sequences, sampling.n);
  }
  if (sampling.stop_token_ids.size() + options.eos_token_ids.size() >
      static_cast<std::size_t>(kMaxStopTokens)) {
    return InvalidArgument("stop_token_ids: at most %d are allowed, not %d",
                           kMaxStopTokens - static_cast<int>(options.eos_token_ids.size()),
                           sampling.stop_token_ids.size());
  }
  if (!sampling.stop.empty() && !has_tokenizer) {
    return InvalidArgument("stop: this model has no tokenizer; use stop_token_ids");
  }

  const int64_t context = MaxModelLen(options, limits);
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t completion = sampling.max_tokens.value_or(1);  // defaulted: room for one is enough
  if (prompt + completion > context) return ContextExceeded(context, prompt, completion);

  const std::optional<int64_t> client_limit =
      sampling.max_tokens.has_value() ? std::optional<int64_t>(completion) : std::nullopt;
  const int64_t reserve = std::min(context, memory.ReservationTokens(prompt, client_limit));
  ResolvedRequest resolved;
  resolved.max_tokens = static_cast<int32_t>(sampling.max_tokens.value_or(context - prompt));
  SPIN_ASSIGN_OR_RETURN(resolved.budget_pages,
                        memory.BudgetPages(request.sparse.budget_tokens, request.sparse.exact,
                                           prompt + resolved.max_tokens));
  const absl::Status fits = memory.CheckFits(prompt, reserve, sampling.n, resolved.budget_pages);
  if (!fits.ok()) return FailedPrecondition("%s", MessageOf(fits));
  return resolved;
}

}  // namespace spin
