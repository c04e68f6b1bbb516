#include "server/grpc/wake_queue.h"

#include <utility>

namespace spin {

WakeQueue::WakeQueue() : thread_([this] { Run(); }) {}

WakeQueue::~WakeQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void WakeQueue::Push(std::function<void()> wake) {
  {
    const std::lock_guard lock(mutex_);
    wakes_.push_back(std::move(wake));
  }
  changed_.notify_one();
}

void WakeQueue::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !wakes_.empty(); });
    if (wakes_.empty()) return;
    const std::function<void()> wake = std::move(wakes_.front());
    wakes_.pop_front();
    lock.unlock();
    wake();
    lock.lock();
  }
}

}  // namespace spin
