// The CPU as a device that captures steps: batches are rounded up to buckets, and it counts who is replayed.
#pragma once

#include <map>

#include "kernels/cpu/cpu_device.h"

namespace spin::testing {

class CapturingDevice final : public cpu::CpuDevice {
 public:
  CapturingDevice(int threads, bool inline_streams)
      : CpuDevice(threads, inline_streams), info_(CpuDevice::info()) {
    info_.captures_steps = true;
  }

  const DeviceInfo& info() const override { return info_; }
  void Replay(uint64_t key, Stream& stream, absl::FunctionRef<void()> enqueue) override {
    ++replays_[key];
    CpuDevice::Replay(key, stream, enqueue);
  }

  // Calls of each key so far.
  const std::map<uint64_t, int>& replays() const { return replays_; }

 private:
  DeviceInfo info_;
  std::map<uint64_t, int> replays_;
};

}  // namespace spin::testing
