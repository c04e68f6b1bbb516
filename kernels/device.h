// Device: where bytes live and in what order things happen. Mathematics is in ops.h.
//
// Work is enqueued on streams and runs later, in order within a stream; events order streams among each other. The
// CPU device behaves the same: its streams are real worker threads. Devices outlive everything made from them.
// Enqueueing is for one thread at a time (the engine thread); Allocate is for start-up only.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "common/status.h"

namespace spin {

enum class MemoryKind {
  kHost,    // ordinary memory, host only
  kPinned,  // host memory that device work may read and write
  kDevice,  // HBM; on the CPU device ordinary memory
};

class Device;

// Owns one allocation. Move-only; uninitialised unless the device says otherwise. Must not outlive its device.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device* device, MemoryKind kind, void* data, int64_t bytes)
      : device_(device), kind_(kind), data_(data), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(kind_, other.kind_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  MemoryKind kind() const { return kind_; }

 private:
  Device* device_ = nullptr;
  MemoryKind kind_ = MemoryKind::kHost;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// kHigh: what is enqueued gets free parts of the device first.
enum class StreamPriority { kNormal, kHigh };

// A queue of work. The destructor waits for what was enqueued.
class Stream {
 public:
  virtual ~Stream() = default;
};

// A point in a stream. Reusable: Record replaces the previous point.
class Event {
 public:
  virtual ~Event() = default;
};

// How far a large allocation has come: called about once a second, on a thread of the device's, one call at a time.
// `ready_bytes` equals `bytes` while the system still has to register what is there.
using AllocationProgress = absl::FunctionRef<void(int64_t ready_bytes, int64_t bytes)>;

struct DeviceInfo {
  std::string name;             // "NVIDIA H100 80GB HBM3", "AMD EPYC (2 threads, avx512_bf16)"
  bool captures_steps = false;  // Replay captures: callers round batch sizes up to a few buckets
  bool overlaps_streams =
      false;  // kernels of two streams run side by side, each with its own part of the device
  bool shares_host_memory = false;    // "HBM" is a part of the host's memory
  int32_t prefill_tile_tokens = 512;  // tokens of a prefill tile that keep the device busy
  // HBM that was free at start; on the CPU device the memory that the process may use.
  int64_t device_bytes = 0;
  int64_t host_bytes =
      0;  // host memory that the process may use (the cgroup's limit where there is one)
};

class Device {
 public:
  virtual ~Device() = default;

  virtual const DeviceInfo& info() const = 0;

  // 4096-byte aligned (device memory: 256). ResourceExhausted with the sizes when there is not enough.
  // What takes no seconds reports no progress.
  virtual absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes,
                                          AllocationProgress progress) = 0;
  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) {
    return Allocate(kind, bytes, [](int64_t, int64_t) {});
  }

  virtual std::unique_ptr<Stream> CreateStream(const char* name, StreamPriority priority) = 0;
  std::unique_ptr<Stream> CreateStream(const char* name) {
    return CreateStream(name, StreamPriority::kNormal);
  }
  virtual std::unique_ptr<Event> CreateEvent() = 0;

  // Enqueued: bytes from `src` to `dst`, any two kinds but kHost together with kDevice.
  virtual void Copy(void* dst, const void* src, int64_t bytes, Stream& stream) = 0;
  virtual void Fill(void* dst, uint8_t value, int64_t bytes, Stream& stream) = 0;

  virtual void Record(Event& event, Stream& stream) = 0;
  virtual void Wait(Stream& stream, Event& event) = 0;  // stream waits for the event's last Record
  virtual bool Passed(Event& event) = 0;  // its last Record; never waits; true before the first
  virtual void Synchronize(Event& event) = 0;  // the calling thread waits
  virtual void Synchronize(Stream& stream) = 0;
  // Device time between two recorded events. REQUIRES: both have passed.
  virtual int64_t ElapsedNs(Event& begin, Event& end) = 0;

  // Enqueues what `enqueue` enqueues on `stream`, and on streams that it forks from there and joins again by events.
  // `key` names the sequence of work: calls with one key must enqueue
  // the same kernels with the same parameters (what varies is read from device memory), so that a device may capture
  // the first call and replay it afterwards. The CPU device just calls it.
  virtual void Replay(uint64_t key, Stream& stream, absl::FunctionRef<void()> enqueue) = 0;

 private:
  friend class Buffer;
  virtual void Free(MemoryKind kind, void* data, int64_t bytes) noexcept = 0;
};

inline Buffer::~Buffer() {
  if (data_ != nullptr) device_->Free(kind_, data_, bytes_);
}

}  // namespace spin
