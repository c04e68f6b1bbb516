// The two streams and the event of the CPU device.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "kernels/cpu/cpu_device.h"

namespace spin::cpu {

// Runs tasks as they are enqueued.
class InlineStream : public CpuStream {
 public:
  InlineStream() : CpuStream(/*run_inline=*/true) {}
  void Drain() override {}

 private:
  Task& NextTask() override;
  void Publish() override;
};

// A thread and a ring of tasks: one producer (the engine thread), one consumer.
class ThreadStream : public CpuStream {
 public:
  static constexpr uint64_t kRingTasks = 1024;  // several decode steps

  explicit ThreadStream(const char* name);
  ~ThreadStream() override;
  void Drain() override;

 private:
  Task& NextTask() override;
  void Publish() override;
  void Run();
  bool WaitForTask(uint64_t index);  // false: stop

  const std::unique_ptr<Task[]> ring_;
  std::atomic<uint64_t> enqueued_{0};  // tasks published; task i is in ring_[i % kRingTasks]
  std::atomic<uint64_t> completed_{0};
  std::atomic<bool> consumer_sleeps_{false};
  std::atomic<int> producers_asleep_{0};
  std::mutex mutex_;  // for sleeping only
  std::condition_variable work_;
  std::condition_variable progress_;
  bool stop_ = false;
  std::thread thread_;
};

// Counts its Records: a Wait names the one it waits for. The destructor waits for tasks that refer
// to it.
class CpuEvent : public Event {
 public:
  ~CpuEvent() override;

  // On the enqueuing thread.
  uint64_t BeginRecord(Stream& stream);  // the ticket to complete
  uint64_t recorded() const { return recorded_; }
  const Stream* stream() const { return stream_; }
  // When the last completed record passed, on a steady clock; 0 before the first.
  int64_t passed_ns() const { return passed_ns_.load(std::memory_order_acquire); }
  void AddUse() { uses_.fetch_add(1, std::memory_order_relaxed); }

  // On any thread.
  bool Passed(uint64_t ticket) const {
    return completed_.load(std::memory_order_acquire) >= ticket;
  }
  void Complete(uint64_t ticket);  // ends one use
  void Await(uint64_t ticket);
  void DropUse();

 private:
  uint64_t recorded_ = 0;
  const Stream* stream_ = nullptr;
  std::atomic<uint64_t> completed_{0};
  std::atomic<int64_t> passed_ns_{0};
  std::atomic<int64_t> uses_{0};  // enqueued tasks that refer to this
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace spin::cpu
