// Device on the CPU. A stream is a thread with a ring of tasks, so that work is as asynchronous as
// on a GPU and ThreadSanitizer sees every missing event; or, inline, work runs as it is enqueued.
//
// A task is a function and its parameters, copied into a slot of the ring: enqueueing allocates
// nothing. When the ring is full the enqueuer waits. Memory of all kinds is mmap-ed, zero-filled,
// 4096-aligned, on huge pages where it is large.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include "kernels/device.h"
#include "kernels/host_memory_use.h"

namespace spin::cpu {

// Largest parameter struct of a task.
inline constexpr size_t kTaskBytes = 496;

class CpuStream : public Stream {
 public:
  // Enqueues run(params). Params is copied as bytes. `run` is called on the stream's thread.
  template <typename Params>
  void Enqueue(void (*run)(const Params&), const Params& params) {
    static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= kTaskBytes);
    static_assert(alignof(Params) <= alignof(std::max_align_t));
    if (inline_) {
      run(params);
      return;
    }
    Task& task = NextTask();
    std::memcpy(task.params, &params, sizeof(Params));
    task.target = reinterpret_cast<void (*)()>(run);
    task.call = [](const Task& t) {
      reinterpret_cast<void (*)(const Params&)>(t.target)(
          *reinterpret_cast<const Params*>(t.params));
    };
    Publish();
  }

  // Waits until all that was enqueued has run.
  virtual void Drain() = 0;

 protected:
  struct Task {
    void (*call)(const Task&) = nullptr;
    void (*target)() = nullptr;
    alignas(std::max_align_t) unsigned char params[kTaskBytes];
  };

  explicit CpuStream(bool run_inline) : inline_(run_inline) {}

  virtual Task& NextTask() = 0;  // waits while the ring is full
  virtual void Publish() = 0;    // hands the task of NextTask over

 private:
  const bool inline_;
};

// The device. `threads` is for its name alone.
class CpuDevice : public Device {
 public:
  CpuDevice(int threads, bool inline_streams);
  ~CpuDevice() override;

  const DeviceInfo& info() const override { return info_; }
  using Device::Allocate;
  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes,
                                  AllocationProgress progress) override;
  using Device::CreateStream;
  std::unique_ptr<Stream> CreateStream(const char* name, StreamPriority priority) override;
  std::unique_ptr<Event> CreateEvent() override;
  void Copy(void* dst, const void* src, int64_t bytes, Stream& stream) override;
  void Fill(void* dst, uint8_t value, int64_t bytes, Stream& stream) override;
  void Record(Event& event, Stream& stream) override;
  void Wait(Stream& stream, Event& event) override;
  bool Passed(Event& event) override;
  void Synchronize(Event& event) override;
  void Synchronize(Stream& stream) override;
  int64_t ElapsedNs(Event& begin, Event& end) override;
  void Replay(uint64_t key, Stream& stream, absl::FunctionRef<void()> enqueue) override;

 private:
  void Free(MemoryKind kind, void* data, int64_t bytes) noexcept override;

  DeviceInfo info_;
  const bool inline_streams_;
  HostMemoryUse memory_;  // in whole pages
};

}  // namespace spin::cpu
