#include "tools/bench/load_generator.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <csignal>
#include <memory>
#include <thread>

#include "tools/bench/grpc_transport.h"
#include "tools/bench/http_transport.h"

namespace spin {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using asio::redirect_error;
using asio::use_awaitable;

constexpr auto kProgressPeriod = std::chrono::milliseconds(100);
constexpr auto kRetryPeriod = std::chrono::milliseconds(250);

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

Clock::duration ToDuration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

double ProcessCpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class LoadRun {
 public:
  explicit LoadRun(const ServeOptions& options) : options_(options) {}

  // Makes the requests.
  absl::Status Prepare(const std::string& model, const std::vector<Prompt>& prompts) {
    SPIN_ASSIGN_OR_RETURN(transport_, options_.grpc.empty()
                                          ? MakeHttpTransport(options_, model, prompts, loop_)
                                          : MakeGrpcTransport(options_, prompts, loop_));
    result_.records.resize(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      // Until the server's usage tells more.
      result_.records[i].input_tokens = static_cast<int>(prompts[i].ids.size());
    }
    return absl::OkStatus();
  }

  LoadResult Run(const std::function<void(const LoadProgress&)>& on_progress) {
    asio::signal_set signals(loop_, SIGINT);
    signals.async_wait([this](const error_code& ec, int) {
      if (ec) return;
      result_.interrupted = true;
      loop_.stop();
    });
    const double cpu_before_s = ProcessCpuSeconds();
    begin_ = Clock::now();
    if (options_.request_rate > 0) {
      asio::co_spawn(loop_, OpenLoop(), asio::detached);
    } else {
      const int clients =
          std::min(options_.EffectiveConcurrency(), static_cast<int>(result_.records.size()));
      for (int i = 0; i < clients; ++i) asio::co_spawn(loop_, Client(), asio::detached);
    }
    while (progress_.finished < static_cast<int>(result_.records.size()) && !loop_.stopped()) {
      loop_.run_for(kProgressPeriod);
      progress_.elapsed_s = Seconds(Clock::now() - begin_);
      progress_.events = transport_->events();
      if (on_progress) on_progress(progress_);
    }
    result_.duration_s =
        end_ > begin_ && !result_.interrupted ? Seconds(end_ - begin_) : progress_.elapsed_s;
    result_.client_cpu_s = ProcessCpuSeconds() - cpu_before_s;
    return std::move(result_);
  }

 private:
  // Closed loop: the next prompt when the last answer ended.
  asio::awaitable<void> Client() {
    while (next_ < result_.records.size()) {
      const size_t index = next_++;
      co_await Send(index);
    }
  }

  // Open loop: each prompt at its time, or as soon after it as the cap on concurrency lets it go.
  asio::awaitable<void> OpenLoop() {
    const std::vector<double> arrivals =
        Arrivals(static_cast<int>(result_.records.size()), options_.request_rate,
                 options_.burstiness, options_.seed);
    asio::steady_timer timer(loop_);
    for (size_t i = 0; i < result_.records.size(); ++i) {
      error_code ec;
      timer.expires_at(begin_ + ToDuration(arrivals[i]));
      co_await timer.async_wait(redirect_error(use_awaitable, ec));
      while (options_.concurrency > 0 && progress_.in_flight >= options_.concurrency) {
        timer.expires_after(std::chrono::milliseconds(1));
        co_await timer.async_wait(redirect_error(use_awaitable, ec));
      }
      asio::co_spawn(loop_, Send(i), asio::detached);
    }
  }

  asio::awaitable<void> Send(size_t index) {
    RequestRecord& record = result_.records[index];
    result_.max_in_flight = std::max(result_.max_in_flight, ++progress_.in_flight);
    record.start_s = Seconds(Clock::now() - begin_);
    co_await transport_->Send(index, record);
    record.finished = true;
    --progress_.in_flight;
    ++progress_.finished;
    progress_.failed += record.error.empty() ? 0 : 1;
    end_ = Clock::now();
    if (progress_.finished == static_cast<int>(result_.records.size())) loop_.stop();
  }

  const ServeOptions& options_;
  asio::io_context loop_{1};
  std::unique_ptr<Transport> transport_;
  LoadProgress progress_;
  LoadResult result_;
  size_t next_ = 0;
  Clock::time_point begin_;
  Clock::time_point end_;
};

}  // namespace

absl::StatusOr<std::string> FetchFirstModel(const ServeOptions& options) {
  const Clock::time_point deadline = Clock::now() + ToDuration(options.wait_s);
  for (;;) {
    absl::StatusOr<std::string> model =
        options.grpc.empty() ? FetchHttpModel(options) : FetchGrpcModel(options);
    if (model.ok() || absl::IsInvalidArgument(model.status())) return model;
    if (Clock::now() >= deadline) {
      return Unavailable(
          "no server at %s (%s). Start one, for example with tools/quickstart, or name another "
          "with %s",
          options.Address(), MessageOf(model.status()), options.grpc.empty() ? "--url" : "--grpc");
    }
    std::this_thread::sleep_for(kRetryPeriod);
  }
}

absl::StatusOr<LoadResult> RunLoad(const ServeOptions& options, const std::string& model,
                                   const std::vector<Prompt>& prompts,
                                   const std::function<void(const LoadProgress&)>& on_progress) {
  LoadRun run(options);
  SPIN_RETURN_IF_ERROR(run.Prepare(model, prompts));
  if (prompts.empty()) return LoadResult{};
  return run.Run(on_progress);
}

}  // namespace spin
