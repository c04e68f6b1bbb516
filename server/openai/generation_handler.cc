#include "server/openai/generation_handler.h"

#include <chrono>
#include <utility>
#include <vector>

#include "server/error_mapping.h"
#include "server/http/error_response.h"
#include "server/http/random_id.h"
#include "server/openai/chat_request.h"
#include "server/openai/chat_response.h"
#include "server/openai/completion_request.h"
#include "server/openai/completion_response.h"
#include "server/openai/generation_task.h"
#include "server/openai/prompt_builder.h"

namespace spin {
namespace {

const CompletionFormat kCompletionFormat;
const ChatFormat kChatFormat;

// A generation that is ready to be submitted: what the engine gets, and what the answer needs.
struct Prepared {
  ResponsePlan plan;
  std::vector<Request> requests;  // one a prompt
};

ResponsePlan MakePlan(const ServingContext& context, const CommonRequest& common,
                      std::string_view id_prefix) {
  ResponsePlan plan;
  plan.id = MakeRandomId(id_prefix);
  plan.created = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  plan.model = common.model.empty() ? context.model.served_names.front() : common.model;
  plan.system_fingerprint = context.system_fingerprint;
  plan.tokenizer = context.tokenizer;
  plan.choices_per_prompt = common.sampling.n;
  plan.one_sequence = common.sampling.temperature == 0;
  plan.stream = common.stream;
  plan.include_usage = common.include_usage;
  plan.continuous_usage_stats = common.continuous_usage_stats;
  // Without a tokenizer there is no text: the tokens are the answer.
  plan.return_token_ids = common.return_token_ids || context.tokenizer == nullptr;
  plan.skip_special_tokens = common.sampling.skip_special_tokens;
  plan.logprobs = common.sampling.logprobs;
  plan.prompt_logprobs = common.sampling.prompt_logprobs;
  return plan;
}

void AddPrompt(const CommonRequest& common, std::vector<int32_t> tokens, Prepared& prepared) {
  PromptInfo info;
  info.num_tokens = static_cast<int64_t>(tokens.size());
  const bool shown =
      prepared.plan.return_token_ids || (prepared.plan.echo && prepared.plan.logprobs.has_value());
  if (shown) info.tokens = tokens;
  prepared.plan.prompts.push_back(std::move(info));
  Request request;
  request.prompt = std::move(tokens);
  request.sampling = common.sampling;
  if (prepared.plan.one_sequence) request.sampling.n = 1;
  request.sparse = common.sparse;
  request.priority = common.priority;
  request.wants_summary = common.spin_usage;
  prepared.requests.push_back(std::move(request));
}

absl::Status CheckStops(const ServingContext& context, const SamplingParams& sampling) {
  if (context.tokenizer != nullptr || sampling.stop.empty()) return absl::OkStatus();
  return BadParam("stop", "This model has no tokenizer: use 'stop_token_ids' in place of 'stop'.");
}

absl::Status AddCompletionPrompt(const ServingContext& context, const CompletionRequest& request,
                                 const std::variant<std::string, std::vector<int32_t>>& prompt,
                                 Prepared& prepared) {
  const CommonRequest& common = request.common;
  const auto* text = std::get_if<std::string>(&prompt);
  std::vector<int32_t> tokens;
  if (text != nullptr) {
    const bool must_fit = !common.truncate_prompt_tokens.has_value();
    SPIN_ASSIGN_OR_RETURN(
        tokens, TokenizeText(context, *text, request.add_special_tokens, "prompt", must_fit));
  } else {
    tokens = std::get<std::vector<int32_t>>(prompt);
  }
  const std::size_t whole = tokens.size();
  TruncatePrompt(common.truncate_prompt_tokens, context.model.max_model_len, tokens);
  std::optional<int64_t> max_tokens = common.sampling.max_tokens;
  if (request.max_tokens_defaulted) max_tokens.reset();
  SPIN_RETURN_IF_ERROR(CheckContextLength(static_cast<int64_t>(tokens.size()), max_tokens,
                                          context.model.max_model_len, "prompt"));
  std::string echoed;
  if (request.echo && text != nullptr && tokens.size() == whole) {
    echoed = *text;
  } else if (request.echo && context.tokenizer != nullptr) {
    echoed = context.tokenizer->Decode(tokens, common.sampling.skip_special_tokens);
  }
  AddPrompt(common, std::move(tokens), prepared);
  prepared.plan.prompts.back().text = std::move(echoed);
  Request& submitted = prepared.requests.back();
  if (request.max_tokens_defaulted) {
    const auto room = context.model.max_model_len - static_cast<int32_t>(submitted.prompt.size());
    submitted.sampling.max_tokens = std::min(*common.sampling.max_tokens, room);
  }
  // max_tokens 0 runs the prompt alone, which the engine does for its log-probabilities.
  const bool wants_prompt = request.echo && common.sampling.logprobs.has_value();
  if (wants_prompt || common.sampling.max_tokens == 0) {
    submitted.sampling.prompt_logprobs =
        std::max(common.sampling.prompt_logprobs.value_or(0), common.sampling.logprobs.value_or(0));
  }
  return absl::OkStatus();
}

absl::StatusOr<Prepared> PrepareCompletion(const ServingContext& context, std::string_view body) {
  SPIN_ASSIGN_OR_RETURN(const Json json, ParseJsonBody(body));
  SPIN_ASSIGN_OR_RETURN(const CompletionRequest request,
                        ParseCompletionRequest(json, context.model));
  SPIN_RETURN_IF_ERROR(CheckStops(context, request.common.sampling));
  Prepared prepared;
  prepared.plan = MakePlan(context, request.common, "cmpl-");
  prepared.plan.echo = request.echo;
  for (const auto& prompt : request.prompts) {
    SPIN_RETURN_IF_ERROR(AddCompletionPrompt(context, request, prompt, prepared));
  }
  return prepared;
}

absl::StatusOr<Prepared> PrepareChat(const ServingContext& context, std::string_view body) {
  SPIN_ASSIGN_OR_RETURN(const Json json, ParseJsonBody(body));
  SPIN_ASSIGN_OR_RETURN(const ChatRequest request, ParseChatRequest(json, context.model));
  const bool must_fit = !request.common.truncate_prompt_tokens.has_value();
  SPIN_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                        TokenizeChat(context, request.prompt, must_fit));
  TruncatePrompt(request.common.truncate_prompt_tokens, context.model.max_model_len, tokens);
  SPIN_RETURN_IF_ERROR(CheckContextLength(static_cast<int64_t>(tokens.size()),
                                          request.common.sampling.max_tokens,
                                          context.model.max_model_len, "messages"));
  Prepared prepared;
  prepared.plan = MakePlan(context, request.common, "chatcmpl-");
  AddPrompt(request.common, std::move(tokens), prepared);
  return prepared;
}

std::unique_ptr<HttpTask> Run(const ServingContext& context, absl::StatusOr<Prepared> prepared,
                              const ResponseFormat& format, const HttpRequest& request,
                              const Waker& wake) {
  if (!prepared.ok()) return Ready(ErrorResponse(prepared.status(), request.id));
  absl::StatusOr<std::unique_ptr<GenerationRun>> run =
      GenerationRun::Start(*context.backend, std::move(prepared->requests), wake);
  if (!run.ok()) return Ready(ErrorResponse(run.status(), request.id));
  return std::make_unique<GenerationTask>(std::move(prepared->plan), format, *std::move(run),
                                          request.id);
}

}  // namespace

std::unique_ptr<HttpTask> HandleCompletions(const ServingContext& context, HttpRequest& request,
                                            Waker wake) {
  return Run(context, PrepareCompletion(context, request.body), kCompletionFormat, request, wake);
}

std::unique_ptr<HttpTask> HandleChatCompletions(const ServingContext& context, HttpRequest& request,
                                                Waker wake) {
  return Run(context, PrepareChat(context, request.body), kChatFormat, request, wake);
}

}  // namespace spin
