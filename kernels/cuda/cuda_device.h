// The CUDA device behind the Device seam: memory, streams, events, captured steps. One GPU, the process's current one.
//
// Replay runs a key's work as it is the first time (libraries choose their algorithms then), captures it into a CUDA
// graph the second time, and launches the graph from there on.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "kernels/device.h"
#include "kernels/host_memory_use.h"

namespace spin::cuda {

// The stream behind the seam's Stream, for the launchers.
cudaStream_t StreamOf(Stream& stream);

class CudaDevice final : public Device {
 public:
  // FailedPrecondition with what is missing when there is no GPU, no driver, or no code for the GPU in this binary.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create();
  ~CudaDevice() override;

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
  CudaDevice();
  void Free(MemoryKind kind, void* data, int64_t bytes) noexcept override;

  DeviceInfo info_;
  HostMemoryUse host_memory_;
  // Null after the first call of a key, the graph after the second. As many as there are kinds of steps: batch buckets,
  // passes and schedules.
  std::unordered_map<uint64_t, cudaGraphExec_t> steps_;
};

}  // namespace spin::cuda
