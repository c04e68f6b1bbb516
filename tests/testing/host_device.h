// A Device for tests: ordinary memory, work runs as it is enqueued. Counts what it is asked for and
// can refuse.
#pragma once

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "common/check.h"
#include "common/math.h"
#include "common/status.h"
#include "kernels/device.h"

namespace spin::testing {

class HostDevice final : public Device {
 public:
  // Allocate refuses when the sum of live allocations would exceed `limit_bytes`.
  explicit HostDevice(int64_t limit_bytes = std::numeric_limits<int64_t>::max())
      : limit_bytes_(limit_bytes) {
    info_.name = "host memory, inline";
    info_.device_bytes = info_.host_bytes = limit_bytes;
  }
  ~HostDevice() override { SPIN_CHECK_EQ(allocated_bytes_, int64_t{0}); }

  int64_t allocated_bytes() const { return allocated_bytes_; }

  const DeviceInfo& info() const override { return info_; }

  // Reports half of the bytes, then all of them.
  using Device::Allocate;
  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes,
                                  AllocationProgress progress) override {
    SPIN_CHECK_GT(bytes, int64_t{0});
    if (bytes > limit_bytes_ - allocated_bytes_) {
      return ResourceExhausted("%d bytes asked for, %d left", bytes,
                               limit_bytes_ - allocated_bytes_);
    }
    constexpr int64_t kAlignment = 4096;
    void* data = std::aligned_alloc(kAlignment, static_cast<size_t>(RoundUp(bytes, kAlignment)));
    SPIN_CHECK(data != nullptr);
    std::memset(data, 0xa5, static_cast<size_t>(bytes));  // uninitialised memory is no zeros
    allocated_bytes_ += bytes;
    progress(bytes / 2, bytes);
    progress(bytes, bytes);
    return Buffer(this, kind, data, bytes);
  }

  using Device::CreateStream;
  std::unique_ptr<Stream> CreateStream(const char*, StreamPriority) override {
    return std::make_unique<Stream>();
  }
  std::unique_ptr<Event> CreateEvent() override { return std::make_unique<TimedEvent>(); }

  void Copy(void* dst, const void* src, int64_t bytes, Stream&) override {
    std::memcpy(dst, src, static_cast<size_t>(bytes));
  }
  void Fill(void* dst, uint8_t value, int64_t bytes, Stream&) override {
    std::memset(dst, value, static_cast<size_t>(bytes));
  }

  void Record(Event& event, Stream&) override {
    static_cast<TimedEvent&>(event).time = std::chrono::steady_clock::now();
  }
  void Wait(Stream&, Event&) override {}
  bool Passed(Event&) override { return true; }
  void Synchronize(Event&) override {}
  void Synchronize(Stream&) override {}
  int64_t ElapsedNs(Event& begin, Event& end) override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               static_cast<TimedEvent&>(end).time - static_cast<TimedEvent&>(begin).time)
        .count();
  }

  void Replay(uint64_t, Stream&, absl::FunctionRef<void()> enqueue) override { enqueue(); }

 private:
  struct TimedEvent final : Event {
    std::chrono::steady_clock::time_point time;
  };

  void Free(MemoryKind, void* data, int64_t bytes) noexcept override {
    allocated_bytes_ -= bytes;
    std::free(data);
  }

  DeviceInfo info_;
  int64_t limit_bytes_;
  int64_t allocated_bytes_ = 0;
};

}  // namespace spin::testing
