#include "engine/engine_loop.h"

#include <utility>

#include "common/check.h"

namespace spin {

EngineLoop::EngineLoop(std::function<bool()> step) : step_(std::move(step)) {}

EngineLoop::~EngineLoop() {
  Stop();
}

void EngineLoop::Start() {
  SPIN_CHECK(!thread_.joinable());
  thread_ = std::thread([this] { Run(); });
}

void EngineLoop::Wake() {
  {
    const std::lock_guard lock(mutex_);
    awake_ = true;
  }
  wakeup_.notify_one();
}

void EngineLoop::Stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wakeup_.notify_one();
  thread_.join();
}

// A Wake during a pass leaves awake_ set, so that the next wait returns at once: no wake-up is
// lost.
bool EngineLoop::WaitForWork() {
  std::unique_lock lock(mutex_);
  wakeup_.wait(lock, [this] { return awake_ || stopping_; });
  awake_ = false;
  return !stopping_;
}

void EngineLoop::Run() {
  while (WaitForWork()) {
    while (step_()) {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
  }
}

}  // namespace spin
