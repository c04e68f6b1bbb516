// The door between the front end's threads and the engine thread: a bounded queue of submissions,
// cancellations, and the register of requests that are alive.
//
// Bounds: at most max_queue requests wait (here or in the scheduler's queue); cancellations are
// kept only for requests that are alive, once each. One mutex; nothing under it calls out.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "common/ids.h"
#include "common/status.h"
#include "engine/request.h"

namespace spin {

struct Submission {
  Request request;
  ResolvedRequest resolved;
  int64_t arrival_ns = 0;
};

// What the engine thread takes at the begin of a pass. Reused, so that the vectors keep their room.
struct InboxBatch {
  std::vector<Submission> submissions;  // in order of arrival
  std::vector<RequestId> cancelled;     // alive when they were cancelled
  bool abort_all = false;               // give every request up

  bool empty() const { return submissions.empty() && cancelled.empty() && !abort_all; }
};

class Inbox {
 public:
  explicit Inbox(int32_t max_queue) : max_queue_(max_queue) {}

  // Any thread. ResourceExhausted: max_queue requests wait already. Unavailable: Close was called.
  // REQUIRES: the id was never used before.
  absl::Status Submit(Submission submission);
  // Any thread. Nothing happens when the request is not alive.
  void Cancel(RequestId id);
  // Any thread. Refuses new requests from now on.
  void Close();
  // Any thread. Every request alive is to be given up; also closes.
  void AbortAll();
  // Any thread. Blocks until no request is alive: true; false after `timeout_ns`.
  bool WaitUntilEmpty(int64_t timeout_ns);
  bool empty() const;

  // Engine thread: takes everything into `batch`, which is cleared first.
  void TakeAll(InboxBatch& batch);
  // Engine thread: a submitted request waits no longer (admitted or gone); its place in the queue
  // is free.
  void LeaveQueue() { waiting_.fetch_sub(1, std::memory_order_relaxed); }
  // Engine thread: the request's last output has been sent.
  void Retire(RequestId id);

  int32_t waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  const int32_t max_queue_;
  std::atomic<int32_t> waiting_{0};  // submitted and never admitted; grows under mutex_

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable drained_;
  std::vector<Submission> submissions_;
  std::vector<RequestId> cancelled_;
  std::map<RequestId, bool> alive_;  // and whether it was cancelled
  bool closed_ = false;
  bool abort_all_ = false;
};

}  // namespace spin
