#include "common/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "common/check.h"
#include "common/math.h"

namespace spin {
namespace {

using Body = absl::FunctionRef<void(int64_t, int64_t)>;

// First about 1 us of spinning, which covers a balanced loop; then about 20 us of offering the core
// to whoever waits for it (on a busy machine often the very thread that is waited for); then sleep.
constexpr int kSpins = 64;
constexpr int kYields = 64;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// A counter that one thread advances and one thread waits on: spins, yields, sleeps.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  void Set(uint32_t value) {
    // Sequentially consistent with the waiter's store of sleeping_: one of the two sees the other.
    value_.store(value, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst)) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_one();
    }
  }

  // Returns when the value differs from `old`.
  void WaitWhile(uint32_t old) {
    for (int i = 0; i < kSpins; ++i) {
      if (value() != old) return;
      Pause();
    }
    for (int i = 0; i < kYields; ++i) {
      if (value() != old) return;
      std::this_thread::yield();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.store(true, std::memory_order_seq_cst);
    wake_.wait(lock, [&] { return value_.load(std::memory_order_seq_cst) != old; });
    sleeping_.store(false, std::memory_order_relaxed);
  }

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<bool> sleeping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

// One thread of the pool. The caller writes the range, then starts; the worker runs it, then
// reports.
struct alignas(128) Worker {
  Signal start;  // advanced by the caller: a new range, or stop
  Signal done;   // advanced by the worker: follows `start`
  const Body* body = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
  bool stop = false;
  std::thread thread;
};

void Run(Worker& worker) {
  for (uint32_t turn = 0;; ++turn) {
    worker.start.WaitWhile(turn);
    if (worker.stop) return;
    (*worker.body)(worker.begin, worker.end);
    worker.done.Set(turn + 1);
  }
}

}  // namespace

struct ThreadPool::Impl {
  explicit Impl(int num_threads) : workers(num_threads - 1) {
    for (Worker& worker : workers) worker.thread = std::thread([&worker] { Run(worker); });
  }
  ~Impl() {
    for (Worker& worker : workers) {
      worker.stop = true;
      worker.start.Set(worker.start.value() + 1);
    }
    for (Worker& worker : workers) worker.thread.join();
  }

  std::mutex turn;  // callers take turns
  std::vector<Worker> workers;
};

ThreadPool::ThreadPool(int num_threads) {
  SPIN_CHECK_GE(num_threads, 1);
  impl_ = std::make_unique<Impl>(num_threads);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::num_threads() const {
  return static_cast<int>(impl_->workers.size()) + 1;
}

void ThreadPool::ParallelFor(int64_t n, int64_t grain, Body body) {
  SPIN_CHECK_GE(grain, 1);
  if (n <= 0) return;
  if (n <= grain || impl_->workers.empty()) {
    body(0, n);
    return;
  }
  const std::lock_guard<std::mutex> lock(impl_->turn);
  const int64_t grains = CeilDiv(n, grain);
  const int64_t parts = std::min<int64_t>(grains, num_threads());
  // Part i of `parts` ends at grain grains * (i + 1) / parts: sizes differ by one grain at most.
  const auto end_of = [&](int64_t part) {
    return std::min(n, grains * (part + 1) / parts * grain);
  };
  for (int64_t i = 1; i < parts; ++i) {
    Worker& worker = impl_->workers[i - 1];
    worker.body = &body;
    worker.begin = end_of(i - 1);
    worker.end = end_of(i);
    worker.start.Set(worker.start.value() + 1);
  }
  body(0, end_of(0));
  for (int64_t i = 1; i < parts; ++i) {
    Worker& worker = impl_->workers[i - 1];
    worker.done.WaitWhile(worker.start.value() - 1);
  }
}

}  // namespace spin
