// How many calls may run at once, over all connections.
#pragma once

#include <atomic>

namespace spin {

// Any thread.
class CallLimit {
 public:
  explicit CallLimit(int most) : most_(most) {}

  // False: so many run already. Else Leave, once, when the call has ended.
  bool Enter() {
    if (running_.fetch_add(1, std::memory_order_relaxed) < most_) return true;
    Leave();
    return false;
  }
  void Leave() { running_.fetch_sub(1, std::memory_order_relaxed); }
  int most() const { return most_; }

 private:
  const int most_;
  std::atomic<int> running_{0};
};

}  // namespace spin
