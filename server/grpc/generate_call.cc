#include "server/grpc/generate_call.h"

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/logging.h"
#include "server/grpc/messages.h"
#include "server/http/random_id.h"
#include "server/response_stream.h"

namespace spin {
namespace {

// Outputs that may wait for a client that reads slowly; beyond, the request is given up.
constexpr std::size_t kMaxWaitingOutputs = 2048;

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  GenerateCall(const ServingContext& context, WakeQueue& wakes, CallLimit& limit)
      : context_(context), wakes_(wakes), limit_(limit) {}

  void Start(const v1::GenerateRequest& message) {
    self_ = shared_from_this();
    log_id_ = RequestIdFor(message.request_id());
    counted_ = limit_.Enter();
    if (!counted_) {
      return Refuse(ResourceExhausted("%d calls run already; try again later", limit_.most()));
    }
    auto request = ToRequest(context_, message);
    if (!request.ok()) return Refuse(request.status());
    prompt_tokens_ = static_cast<int32_t>(request->prompt.size());
    prompt_ = request->prompt;
    const auto n = static_cast<std::size_t>(request->sampling.n);
    completion_tokens_.resize(n);
    report_logprobs_ = request->sampling.logprobs.has_value();
    stream_ = std::make_shared<ResponseStream>(kMaxWaitingOutputs, [this] { Wake(); });
    id_ = request->id = context_.backend->NextRequestId();
    request->sink = stream_;
    submitted_ = true;
    const absl::Status status = context_.backend->Submit(*std::move(request));
    if (!status.ok()) {
      submitted_ = false;
      Refuse(status);
    }
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) FinishOnce(grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone"));
    }
    Pump();
  }

  void OnCancel() override {
    GiveUp();
    const std::lock_guard lock(mutex_);
    FinishOnce(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    GiveUp();
    if (counted_) limit_.Leave();
    Log();
    const std::shared_ptr<GenerateCall> last =
        std::move(self_);  // a wake on its way may hold another
  }

 private:
  void Log() {
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - started_;
    SPIN_LOG(DEBUG, "gRPC Generate %s %.1f ms %s",
             absl::StatusCodeToString(static_cast<absl::StatusCode>(code_)), elapsed.count(),
             log_id_);
  }

  // Engine thread, under the stream's lock.
  void Wake() {
    if (wake_pending_.exchange(true)) return;
    wakes_.Push([self = shared_from_this()] {
      self->wake_pending_ = false;
      self->Pump();
    });
  }

  void GiveUp() {
    if (!submitted_) return;
    stream_->Close();
    context_.backend->Cancel(id_);
  }

  void Refuse(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    FinishOnce(ToGrpcStatus(status));
  }

  void FinishOnce(const grpc::Status& status) {
    if (finished_) return;
    finished_ = true;
    code_ = status.error_code();
    Finish(status);
  }

  // Writes the next message unless one is on its way. The wake thread or gRPC's.
  void Pump() {
    const std::lock_guard lock(mutex_);
    if (finished_ || writing_) return;
    while (messages_.empty() && !ended_) {
      std::optional<RequestOutput> output = stream_->TryPop();
      if (!output.has_value()) {
        if (stream_->overflowed())
          FinishOnce({grpc::StatusCode::ABORTED, "the client reads too slowly"});
        return;
      }
      Take(*output);
    }
    if (messages_.empty()) return FinishOnce(end_);
    current_ = std::move(messages_.front());
    messages_.pop_front();
    writing_ = true;
    StartWrite(&current_);
  }

  void Take(const RequestOutput& output) {
    ended_ = output.finished;
    if (!output.error.ok()) end_ = ToGrpcStatus(output.error);
    for (const SequenceDelta& delta : output.deltas) {
      completion_tokens_[delta.index] += static_cast<int32_t>(delta.tokens.size());
      v1::GenerateResponse message = ToMessage(delta, report_logprobs_);
      AddPromptLogprobs(output, message);
      if (delta.finish != FinishReason::kNone) {
        message.mutable_usage()->set_prompt_tokens(prompt_tokens_);
        message.mutable_usage()->set_completion_tokens(completion_tokens_[delta.index]);
        message.mutable_usage()->set_cached_prompt_tokens(output.cached_prompt_tokens);
      }
      messages_.push_back(std::move(message));
    }
    if (output.summary.has_value() && !output.deltas.empty()) {
      *messages_.back().mutable_usage()->mutable_spin() = ToMessage(*output.summary);
    }
  }

  void AddPromptLogprobs(const RequestOutput& output, v1::GenerateResponse& message) {
    if (prompt_logprobs_sent_ || output.prompt_logprobs.empty()) return;
    prompt_logprobs_sent_ = true;
    message.add_prompt_tokens()->set_id(prompt_[0]);
    for (const SampledToken& token : output.prompt_logprobs) {
      *message.add_prompt_tokens() = ToMessage(token, true);
    }
  }

  const ServingContext& context_;
  WakeQueue& wakes_;
  CallLimit& limit_;
  bool counted_ = false;                // by limit_
  std::shared_ptr<GenerateCall> self_;  // gRPC's hold on the call, until OnDone
  std::atomic<bool> wake_pending_ = false;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::string log_id_;
  RequestId id_;
  std::shared_ptr<ResponseStream> stream_;
  bool submitted_ = false;
  bool report_logprobs_ = false;
  int32_t prompt_tokens_ = 0;
  std::vector<int32_t> prompt_;

  std::mutex mutex_;  // guards what follows
  std::deque<v1::GenerateResponse> messages_;
  v1::GenerateResponse current_;
  std::vector<int32_t> completion_tokens_;
  grpc::Status end_;
  bool prompt_logprobs_sent_ = false;
  bool ended_ = false;
  bool writing_ = false;
  bool finished_ = false;
  grpc::StatusCode code_ = grpc::StatusCode::OK;  // once finished, for good
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerateCall(
    const ServingContext& context, const v1::GenerateRequest& request, WakeQueue& wakes,
    CallLimit& limit) {
  const auto call = std::make_shared<GenerateCall>(context, wakes, limit);
  call->Start(request);
  return call.get();
}

}  // namespace spin
