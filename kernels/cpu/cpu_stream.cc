#include "kernels/cpu/cpu_stream.h"

#include <chrono>
#include <cstdio>

#include "common/check.h"

namespace spin::cpu {
namespace {

// A stream that has just run dry is mostly given more at once; longer, and it would take a core
// from the others.
constexpr int kSpins = 64;
constexpr int kYields = 32;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

// Enqueue of an inline stream never comes here.
CpuStream::Task& InlineStream::NextTask() {
  internal::CheckFailed(__FILE__, __LINE__, "no ring");
}
void InlineStream::Publish() {
  internal::CheckFailed(__FILE__, __LINE__, "no ring");
}

ThreadStream::ThreadStream(const char* name)
    : CpuStream(/*run_inline=*/false), ring_(new Task[kRingTasks]) {
  thread_ = std::thread([this] { Run(); });
  char short_name[16];  // the kernel's limit
  std::snprintf(short_name, sizeof(short_name), "%s", name);
  pthread_setname_np(thread_.native_handle(), short_name);
}

ThreadStream::~ThreadStream() {
  Drain();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  work_.notify_one();
  thread_.join();
}

CpuStream::Task& ThreadStream::NextTask() {
  const uint64_t index = enqueued_.load(std::memory_order_relaxed);
  if (index - completed_.load(std::memory_order_acquire) >= kRingTasks) {
    std::unique_lock<std::mutex> lock(mutex_);
    producers_asleep_.fetch_add(1, std::memory_order_seq_cst);
    progress_.wait(lock,
                   [&] { return index - completed_.load(std::memory_order_seq_cst) < kRingTasks; });
    producers_asleep_.fetch_sub(1, std::memory_order_relaxed);
  }
  return ring_[index % kRingTasks];
}

void ThreadStream::Publish() {
  // Sequentially consistent with the consumer's store of consumer_sleeps_: one of the two sees the
  // other.
  enqueued_.fetch_add(1, std::memory_order_seq_cst);
  if (consumer_sleeps_.load(std::memory_order_seq_cst)) {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_.notify_one();
  }
}

void ThreadStream::Drain() {
  const uint64_t all = enqueued_.load(std::memory_order_relaxed);
  if (completed_.load(std::memory_order_acquire) >= all) return;
  std::unique_lock<std::mutex> lock(mutex_);
  producers_asleep_.fetch_add(1, std::memory_order_seq_cst);
  progress_.wait(lock, [&] { return completed_.load(std::memory_order_seq_cst) >= all; });
  producers_asleep_.fetch_sub(1, std::memory_order_relaxed);
}

bool ThreadStream::WaitForTask(uint64_t index) {
  for (int i = 0; i < kSpins; ++i) {
    if (enqueued_.load(std::memory_order_acquire) > index) return true;
    Pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (enqueued_.load(std::memory_order_acquire) > index) return true;
    std::this_thread::yield();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  consumer_sleeps_.store(true, std::memory_order_seq_cst);
  work_.wait(lock, [&] { return stop_ || enqueued_.load(std::memory_order_seq_cst) > index; });
  consumer_sleeps_.store(false, std::memory_order_relaxed);
  return enqueued_.load(std::memory_order_acquire) > index;
}

void ThreadStream::Run() {
  for (uint64_t index = 0; WaitForTask(index); ++index) {
    const Task& task = ring_[index % kRingTasks];
    task.call(task);
    completed_.store(index + 1, std::memory_order_seq_cst);
    if (producers_asleep_.load(std::memory_order_seq_cst) > 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      progress_.notify_all();
    }
  }
}

CpuEvent::~CpuEvent() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return uses_.load(std::memory_order_acquire) == 0; });
}

uint64_t CpuEvent::BeginRecord(Stream& stream) {
  stream_ = &stream;
  AddUse();
  return ++recorded_;
}

void CpuEvent::Complete(uint64_t ticket) {
  // Under the lock, notification included: the destructor may run as soon as it is released.
  const std::lock_guard<std::mutex> lock(mutex_);
  passed_ns_.store(
      std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1),
      std::memory_order_release);
  completed_.store(ticket, std::memory_order_release);
  uses_.fetch_sub(1, std::memory_order_release);
  changed_.notify_all();
}

void CpuEvent::Await(uint64_t ticket) {
  if (Passed(ticket)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return Passed(ticket); });
}

void CpuEvent::DropUse() {
  const std::lock_guard<std::mutex> lock(mutex_);
  uses_.fetch_sub(1, std::memory_order_release);
  changed_.notify_all();
}

}  // namespace spin::cpu
