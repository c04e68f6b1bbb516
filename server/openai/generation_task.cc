#include "server/openai/generation_task.h"

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "server/error_mapping.h"
#include "server/http/error_response.h"
#include "server/http/sse_writer.h"
#include "server/openai/json_response.h"
#include "server/openai/usage.h"

namespace spin {
namespace {

// One PollBody stops taking outputs beyond this: the next write follows the first.
constexpr std::size_t kMaxBodyBytes = std::size_t{32} << 10;

}  // namespace

GenerationTask::GenerationTask(ResponsePlan plan, const ResponseFormat& format,
                               std::unique_ptr<GenerationRun> run, std::string request_id)
    : plan_(std::move(plan)),
      format_(format),
      run_(std::move(run)),
      request_id_(std::move(request_id)) {
  const auto per_prompt = static_cast<std::size_t>(plan_.choices_per_prompt);
  choices_.resize(plan_.prompts.size() * per_prompt);
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].index = static_cast<int32_t>(i);
    choices_[i].prompt = i / per_prompt;
  }
}

void GenerationTask::Take(const SequenceDelta& delta, ChoiceState& choice) const {
  choice.text += delta.text;
  choice.num_tokens += static_cast<int64_t>(delta.tokens.size());
  if (plan_.keeps_tokens()) {
    choice.tokens.insert(choice.tokens.end(), delta.tokens.begin(), delta.tokens.end());
  }
  if (delta.finish == FinishReason::kNone) return;
  choice.finish = delta.finish;
  choice.stop_string = delta.stop_string;
  choice.stop_token = delta.stop_token;
}

void GenerationTask::Take(const GenerationRun::Event& event) {
  started_ = true;
  const RequestOutput& output = event.output;
  if (!output.error.ok()) {
    failure_ = output.error;
    return;
  }
  PromptInfo& prompt = plan_.prompts[event.request];
  prompt.cached_tokens = std::max(prompt.cached_tokens, output.cached_prompt_tokens);
  if (!output.prompt_logprobs.empty()) prompt.logprobs = output.prompt_logprobs;
  if (output.summary.has_value()) prompt.summary = output.summary;
  const auto per_prompt = static_cast<std::size_t>(plan_.choices_per_prompt);
  ChoiceState* first = &choices_[event.request * per_prompt];
  for (const SequenceDelta& delta : output.deltas) {
    if (plan_.one_sequence) {
      for (std::size_t j = 0; j < per_prompt; ++j) Take(delta, first[j]);
    } else if (delta.index >= 0 && static_cast<std::size_t>(delta.index) < per_prompt) {
      Take(delta, first[delta.index]);
    }
  }
}

// Takes all that has arrived (a whole answer has no reader that could be slow).
void GenerationTask::Gather() {
  while (failure_.ok()) {
    const std::optional<GenerationRun::Event> event = run_->TryNext();
    if (!event.has_value()) break;
    Take(*event);
  }
}

std::optional<HttpResponse> GenerationTask::PollHead() {
  if (!plan_.stream) {
    Gather();
    idle_ = false;
    if (!failure_.ok()) return ErrorResponse(failure_, request_id_);
    if (!run_->finished()) return std::nullopt;
    return JsonResponse(format_.Whole(plan_, choices_));
  }
  if (!started_) {
    const std::optional<GenerationRun::Event> event = run_->TryNext();
    if (event.has_value()) Take(*event);
  }
  if (!failure_.ok()) return ErrorResponse(failure_, request_id_);
  if (!started_ && !idle_) return std::nullopt;
  HttpResponse head;
  head.streamed = true;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  return head;
}

bool GenerationTask::HasNews(const ChoiceState& choice) const {
  const bool ends = choice.finish != FinishReason::kNone && !choice.closed;
  return !choice.text.empty() || ends || (plan_.return_token_ids && !choice.tokens.empty());
}

void GenerationTask::AppendChunk(Json chunk, std::string& out) const {
  if (plan_.continuous_usage_stats) {
    chunk["usage"] = FormatUsage(plan_, choices_);
  } else if (plan_.include_usage) {
    chunk["usage"] = nullptr;
  }
  AppendSseEvent(DumpJson(chunk), out);
}

void GenerationTask::AppendEnd(std::string& out) const {
  if (!failure_.ok()) {
    SPIN_LOG(WARNING, "request %s failed while it streamed: %s", request_id_, MessageOf(failure_));
    AppendSseEvent(ErrorBody(ToApiError(failure_)), out);
  } else if (plan_.include_usage) {
    Json chunk = format_.UsageChunk(plan_);
    chunk["usage"] = FormatUsage(plan_, choices_);
    AppendSseEvent(DumpJson(chunk), out);
  }
  AppendSseDone(out);
}

HttpTask::Body GenerationTask::PollBody() {
  Body body;
  for (;;) {
    if (!failure_.ok()) break;
    for (ChoiceState& choice : choices_) {
      if (!HasNews(choice)) continue;
      choice.closed = choice.finish != FinishReason::kNone;
      for (Json& chunk : format_.Chunks(plan_, choice)) AppendChunk(std::move(chunk), body.data);
    }
    if (run_->finished()) break;
    if (body.data.size() >= kMaxBodyBytes) return body;
    const std::optional<GenerationRun::Event> event = run_->TryNext();
    if (!event.has_value()) {
      if (body.data.empty() && std::exchange(idle_, false)) AppendSsePing(body.data);
      return body;
    }
    Take(*event);
  }
  AppendEnd(body.data);
  body.last = true;
  body.close = !failure_.ok();
  return body;
}

}  // namespace spin
