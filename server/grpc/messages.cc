#include "server/grpc/messages.h"

#include <utility>

#include "server/sparse_request.h"

namespace spin {
namespace {

template <typename T>
T Or(bool present, T own, const std::optional<T>& model_default, T neutral) {
  return present ? own : model_default.value_or(neutral);
}

SamplingParams ToSampling(const SamplingDefaults& defaults, const v1::SamplingParams& m) {
  SamplingParams s;
  s.temperature = Or<double>(m.has_temperature(), m.temperature(), defaults.temperature, 1);
  s.top_p = Or<double>(m.has_top_p(), m.top_p(), defaults.top_p, 1);
  s.top_k = Or<int32_t>(m.has_top_k(), m.top_k(), defaults.top_k, 0);
  s.min_p = Or<double>(m.has_min_p(), m.min_p(), defaults.min_p, 0);
  s.repetition_penalty = Or<double>(m.has_repetition_penalty(), m.repetition_penalty(),
                                    defaults.repetition_penalty, 1);
  s.presence_penalty = m.presence_penalty();
  s.frequency_penalty = m.frequency_penalty();
  if (m.has_seed()) s.seed = m.seed();
  for (const auto& [token, bias] : m.logit_bias()) s.logit_bias.emplace_back(token, bias);
  if (m.has_max_tokens()) s.max_tokens = m.max_tokens();
  s.min_tokens = m.min_tokens();
  s.stop.assign(m.stop().begin(), m.stop().end());
  s.stop_token_ids.assign(m.stop_token_ids().begin(), m.stop_token_ids().end());
  s.ignore_eos = m.ignore_eos();
  s.include_stop_str_in_output = m.include_stop_str_in_output();
  s.skip_special_tokens = !m.has_skip_special_tokens() || m.skip_special_tokens();
  s.n = m.has_n() ? m.n() : 1;
  if (m.has_logprobs()) s.logprobs = m.logprobs();
  if (m.has_prompt_logprobs()) s.prompt_logprobs = m.prompt_logprobs();
  return s;
}

}  // namespace

absl::StatusOr<Request> ToRequest(const ServingContext& context,
                                  const v1::GenerateRequest& message) {
  if (context.state != ServerState::kReady) {
    return Unavailable("the server is %s",
                       context.state == ServerState::kLoading ? "loading" : "draining");
  }
  Request request;
  request.priority = message.priority();
  request.wants_summary = message.spin_usage();
  request.sampling = ToSampling(context.model.defaults, message.sampling());
  const v1::SparseOptions& sparse = message.sparse();
  if (sparse.has_budget_tokens()) request.sparse.budget_tokens = sparse.budget_tokens();
  request.sparse.exact = sparse.exact();
  SPIN_RETURN_IF_ERROR(CheckSparse(sparse.algorithm(), context.model, request.sparse));
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText:
      if (context.tokenizer == nullptr) {
        return Unimplemented("text: the model has no tokenizer; send token ids");
      }
      request.prompt = context.tokenizer->Encode(message.text(), true);
      break;
    case v1::GenerateRequest::kTokens:
      request.prompt.assign(message.tokens().ids().begin(), message.tokens().ids().end());
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return InvalidArgument("prompt: neither text nor tokens are given");
  }
  return request;
}

v1::GeneratedToken ToMessage(const SampledToken& token, bool with_logprobs) {
  v1::GeneratedToken message;
  message.set_id(token.token);
  if (!with_logprobs) return message;
  message.set_logprob(token.logprob);
  for (int32_t i = 0; i < token.num_top; ++i) {
    v1::TokenLogprob* top = message.add_top();
    top->set_token(token.top_token[i]);
    top->set_logprob(token.top_logprob[i]);
  }
  return message;
}

v1::GenerateResponse ToMessage(const SequenceDelta& delta, bool with_logprobs) {
  v1::GenerateResponse message;
  message.set_index(delta.index);
  message.set_text(delta.text);
  for (const SampledToken& token : delta.tokens)
    *message.add_tokens() = ToMessage(token, with_logprobs);
  if (delta.finish == FinishReason::kStop) message.set_finish_reason(v1::FINISH_REASON_STOP);
  if (delta.finish == FinishReason::kLength) message.set_finish_reason(v1::FINISH_REASON_LENGTH);
  if (!delta.stop_string.empty()) {
    message.set_stop_string(delta.stop_string);
  } else if (delta.stop_token.has_value()) {
    message.set_stop_token(*delta.stop_token);
  }
  return message;
}

v1::SpinUsage ToMessage(const RequestSummary& summary) {
  v1::SpinUsage message;
  message.set_queue_ms(static_cast<double>(summary.queue_ns) * 1e-6);
  message.set_prefill_ms(static_cast<double>(summary.prefill_ns) * 1e-6);
  message.set_decode_ms(static_cast<double>(summary.decode_ns) * 1e-6);
  message.set_placement(summary.placement == Placement::kTiered ? "tiered" : "resident");
  message.set_demotions(summary.demotions);
  message.set_context_tokens(summary.context_tokens);
  const auto attended = summary.attended_tokens_a_step();
  if (attended.has_value()) message.set_attended_tokens(*attended);
  const auto hit_ratio = summary.hit_ratio();
  if (hit_ratio.has_value()) message.set_hit_ratio(*hit_ratio);
  message.set_fetched_bytes(summary.fetched_bytes);
  return message;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  grpc::StatusCode code = static_cast<grpc::StatusCode>(status.code());
  if (absl::IsOutOfRange(status) || absl::IsFailedPrecondition(status))
    code = grpc::StatusCode::INVALID_ARGUMENT;
  return {code, MessageOf(status)};
}

}  // namespace spin
