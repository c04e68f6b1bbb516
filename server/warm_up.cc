#include "server/warm_up.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

namespace spin {
namespace {

constexpr int32_t kPromptTokens = 32;
constexpr int32_t kOutputTokens = 8;
constexpr auto kTimeout = std::chrono::minutes(1);

class WaitingSink final : public OutputSink {
 public:
  bool OnOutput(RequestOutput output) override {
    const std::lock_guard lock(mutex_);
    if (output.finished) {
      finished_ = true;
      error_ = output.error;
    }
    changed_.notify_all();
    return true;
  }

  absl::Status Wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kTimeout, [&] { return finished_; })) {
      return Unavailable("the warm-up request did not finish within a minute");
    }
    return error_;
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool finished_ = false;
  absl::Status error_;
};

}  // namespace

absl::Status WarmUp(GenerationBackend& backend, int32_t vocab_size) {
  auto sink = std::make_shared<WaitingSink>();
  Request request;
  request.id = backend.NextRequestId();
  for (int32_t i = 0; i < kPromptTokens; ++i) request.prompt.push_back(i * 7 % vocab_size);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = kOutputTokens;
  request.sampling.ignore_eos = true;
  request.sink = sink;
  const absl::Status submitted = backend.Submit(std::move(request));
  // A context or budget too small for these few tokens is no reason not to start.
  if (!submitted.ok()) return absl::OkStatus();
  return Annotate(sink->Wait(), "warm-up");
}

}  // namespace spin
