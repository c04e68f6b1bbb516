#include "server/response_stream.h"

#include <utility>

#include "common/check.h"

namespace spin {

ResponseStream::ResponseStream(std::size_t max_outputs, std::function<void()> on_ready)
    : max_outputs_(max_outputs), on_ready_(std::move(on_ready)) {
  SPIN_CHECK_GT(max_outputs_, 0u);
}

bool ResponseStream::OnOutput(RequestOutput output) {
  // on_ready runs under the lock: after Close has returned it cannot be called any more.
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_ || overflowed_) return false;
  if (outputs_.size() >= max_outputs_) {
    overflowed_ = true;
    return false;
  }
  const bool was_empty = outputs_.empty();
  outputs_.push_back(std::move(output));
  if (was_empty && on_ready_) on_ready_();
  return true;
}

std::optional<RequestOutput> ResponseStream::TryPop() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (outputs_.empty()) return std::nullopt;
  std::optional<RequestOutput> output(std::move(outputs_.front()));
  outputs_.pop_front();
  return output;
}

void ResponseStream::Close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  on_ready_ = nullptr;
  outputs_.clear();
}

bool ResponseStream::overflowed() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return overflowed_;
}

}  // namespace spin
