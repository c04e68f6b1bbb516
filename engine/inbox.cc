#include "engine/inbox.h"

#include <chrono>
#include <utility>

#include "common/check.h"

namespace spin {

absl::Status Inbox::Submit(Submission submission) {
  const std::lock_guard lock(mutex_);
  if (closed_) {
    return Unavailable("The server is shutting down and takes no new requests");
  }
  if (waiting() >= max_queue_) {
    return ResourceExhausted("The queue is full (%d requests wait); try again later", max_queue_);
  }
  const bool is_new = alive_.emplace(submission.request.id, false).second;
  SPIN_CHECK(is_new);
  waiting_.fetch_add(1, std::memory_order_relaxed);
  submissions_.push_back(std::move(submission));
  return absl::OkStatus();
}

void Inbox::Cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto it = alive_.find(id);
  if (it == alive_.end() || it->second) return;
  it->second = true;
  cancelled_.push_back(id);
}

void Inbox::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void Inbox::AbortAll() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  abort_all_ = !alive_.empty();
}

bool Inbox::WaitUntilEmpty(int64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  return drained_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                           [this] { return alive_.empty(); });
}

bool Inbox::empty() const {
  const std::lock_guard lock(mutex_);
  return alive_.empty();
}

void Inbox::TakeAll(InboxBatch& batch) {
  batch.submissions.clear();
  batch.cancelled.clear();
  const std::lock_guard lock(mutex_);
  batch.submissions.swap(submissions_);
  batch.cancelled.swap(cancelled_);
  batch.abort_all = std::exchange(abort_all_, false);
}

void Inbox::Retire(RequestId id) {
  const std::lock_guard lock(mutex_);
  const std::size_t erased = alive_.erase(id);
  SPIN_CHECK_EQ(erased, std::size_t{1});
  if (alive_.empty()) drained_.notify_all();
}

}  // namespace spin
