// The one thread that runs passes. It sleeps when a pass had nothing to do, and wakes when told.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace spin {

class EngineLoop {
 public:
  // `step` runs one pass and says whether there may be more to do; it is called on the loop's
  // thread only.
  explicit EngineLoop(std::function<bool()> step);
  ~EngineLoop();  // stops

  // REQUIRES: not started before.
  void Start();
  // Any thread: there is something to do.
  void Wake();
  // Ends after the pass that runs now; returns when the thread has ended. Not from the loop's
  // thread. Again: nothing.
  void Stop();

  // Any thread, but not beside Start or Stop.
  bool started() const { return thread_.joinable(); }

 private:
  void Run();
  bool WaitForWork();  // false: stop

  const std::function<bool()> step_;
  std::mutex mutex_;  // guards awake_ and stopping_
  std::condition_variable wakeup_;
  bool awake_ = true;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace spin
