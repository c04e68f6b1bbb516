#include "tools/bench/grpc_transport.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <utility>

#include "proto/inference.grpc.pb.h"

namespace spin {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr auto kModelInfoTimeout = std::chrono::seconds(10);

Clock::duration ToDuration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::shared_ptr<grpc::Channel> MakeChannel(const ServeOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(options.grpc, grpc::InsecureChannelCredentials(), arguments);
}

void Authorize(const ServeOptions& options, grpc::ClientContext& context) {
  if (!options.api_key.empty()) context.AddMetadata("authorization", "Bearer " + options.api_key);
}

std::string ErrorOf(const grpc::Status& status) {
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  return absl::StrFormat("gRPC %s: %s", absl::StatusCodeToString(code), status.error_message());
}

v1::GenerateRequest ToMessage(const ServeOptions& options, const Prompt& prompt) {
  v1::GenerateRequest message;
  if (options.token_ids) {
    message.mutable_tokens()->mutable_ids()->Add(prompt.ids.begin(), prompt.ids.end());
  } else {
    message.set_text(prompt.text);
  }
  message.mutable_sampling()->set_temperature(static_cast<float>(options.temperature));
  message.mutable_sampling()->set_max_tokens(prompt.output_len);
  message.mutable_sampling()->set_ignore_eos(options.ignore_eos);
  return message;
}

// Calls that gRPC's threads may still touch. What the last of them does on the loop is done under
// the lock, so that nobody tears down loop or call in between.
class RunningCalls {
 public:
  void Add(grpc::ClientContext& context) {
    const std::lock_guard lock(mutex_);
    contexts_.insert(&context);
  }

  template <typename Last>
  void Remove(grpc::ClientContext& context, Last last) {
    const std::lock_guard lock(mutex_);
    contexts_.erase(&context);
    last();
    changed_.notify_all();
  }

  void CancelAndWait() {
    std::unique_lock lock(mutex_);
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
    changed_.wait(lock, [this] { return contexts_.empty(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<grpc::ClientContext*> contexts_;
};

// One stream. gRPC's threads fill in `record_`; the loop's thread takes it when done_ is set.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse>,
                   public std::enable_shared_from_this<Call> {
 public:
  Call(const ServeOptions& options, asio::io_context& loop, RunningCalls& running,
       std::atomic<int64_t>& total_events)
      : options_(options),
        loop_(loop),
        running_(running),
        total_events_(total_events),
        ended_(loop) {
    Authorize(options, context_);
  }

  asio::awaitable<void> Run(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
                            RequestRecord& record) {
    record_.input_tokens = record.input_tokens;
    self_ = shared_from_this();
    running_.Add(context_);
    Touch();
    begin_ = Clock::now();
    stub.async()->Generate(&context_, &request, this);
    StartRead(&response_);
    StartCall();
    co_await WaitForEnd();
    record_.start_s = record.start_s;
    record = std::move(record_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    Touch();
    TakeResponse();
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    if (timed_out_) {
      record_.error = absl::StrFormat("no message within %g s", options_.timeout_s);
    } else if (!status.ok()) {
      record_.error = ErrorOf(status);
    } else if (events_ == 0) {
      record_.error = "the stream held no token";
    }
    if (record_.output_tokens == 0) record_.output_tokens = counted_tokens_;
    // Once posted, the loop may destroy this call.
    running_.Remove(context_, [this] {
      asio::post(loop_, [self = std::move(self_)] {
        self->done_ = true;
        self->ended_.cancel();
      });
    });
  }

 private:
  void Touch() { last_read_ = Clock::now().time_since_epoch().count(); }

  // On the loop. Gives the call up when nothing was read for options.timeout_s.
  asio::awaitable<void> WaitForEnd() {
    const Clock::duration timeout = ToDuration(options_.timeout_s);
    while (!done_) {
      const Clock::time_point due{Clock::duration(last_read_.load()) + timeout};
      if (!timed_out_ && due <= Clock::now()) {
        timed_out_ = true;
        context_.TryCancel();
      }
      error_code ec;
      ended_.expires_at(timed_out_ ? Clock::time_point::max() : due);
      co_await ended_.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    }
  }

  void TakeResponse() {
    if (response_.has_usage()) {
      record_.input_tokens = response_.usage().prompt_tokens();
      record_.output_tokens = response_.usage().completion_tokens();
    }
    if (response_.tokens_size() == 0 && response_.text().empty()) return;
    const double now_s = std::chrono::duration<double>(Clock::now() - begin_).count();
    if (events_ == 0) {
      record_.ttft_s = now_s;
    } else {
      record_.itl_s.push_back(now_s - record_.e2e_s);
    }
    record_.e2e_s = now_s;
    counted_tokens_ += response_.tokens_size();
    ++events_;
    total_events_.fetch_add(1, std::memory_order_relaxed);
  }

  const ServeOptions& options_;
  asio::io_context& loop_;
  RunningCalls& running_;
  std::atomic<int64_t>& total_events_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
  RequestRecord record_;
  int events_ = 0;
  int counted_tokens_ = 0;
  Clock::time_point begin_;
  std::atomic<Clock::rep> last_read_ = 0;
  std::atomic<bool> timed_out_ = false;
  std::shared_ptr<Call> self_;  // gRPC's hold, until OnDone

  // The loop's thread alone.
  asio::steady_timer ended_;
  bool done_ = false;
};

class GrpcTransport final : public Transport {
 public:
  GrpcTransport(const ServeOptions& options, std::vector<v1::GenerateRequest> requests,
                asio::io_context& loop)
      : options_(options),
        loop_(loop),
        requests_(std::move(requests)),
        stub_(v1::Inference::NewStub(MakeChannel(options))) {}

  ~GrpcTransport() override { running_.CancelAndWait(); }

  asio::awaitable<void> Send(size_t index, RequestRecord& record) override {
    const auto call = std::make_shared<Call>(options_, loop_, running_, events_);
    co_await call->Run(*stub_, requests_[index], record);
  }

 private:
  const ServeOptions& options_;
  asio::io_context& loop_;
  const std::vector<v1::GenerateRequest> requests_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
  RunningCalls running_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeGrpcTransport(const ServeOptions& options,
                                                             const std::vector<Prompt>& prompts,
                                                             asio::io_context& loop) {
  std::vector<v1::GenerateRequest> requests;
  for (const Prompt& prompt : prompts) requests.push_back(ToMessage(options, prompt));
  return std::make_unique<GrpcTransport>(options, std::move(requests), loop);
}

absl::StatusOr<std::string> FetchGrpcModel(const ServeOptions& options) {
  const auto stub = v1::Inference::NewStub(MakeChannel(options));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kModelInfoTimeout);
  Authorize(options, context);
  v1::GetModelInfoResponse info;
  const grpc::Status status = stub->GetModelInfo(&context, {}, &info);
  if (!status.ok()) return Unavailable("%s", ErrorOf(status));
  if (info.served_names_size() == 0) return DataLoss("GetModelInfo names no model");
  return info.served_names(0);
}

}  // namespace spin
