// Carries wakes from the engine's thread to a thread of its own, where calls may write to their clients.
//
// A ResponseStream wakes under its lock; what it wakes must not pop there. Any thread pushes; items run in order,
// one at a time. Bounded by its users: a call has at most one wake waiting.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace spin {

class WakeQueue {
 public:
  WakeQueue();
  ~WakeQueue();  // runs what is left

  void Push(std::function<void()> wake);

 private:
  void Run();

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> wakes_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace spin
