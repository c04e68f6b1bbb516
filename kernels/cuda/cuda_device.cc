#include "kernels/cuda/cuda_device.h"

#include <cstdlib>

#include "common/host_limits.h"
#include "common/math.h"
#include "common/units.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/code_probe.h"
#include "kernels/cuda/pinned_memory.h"

namespace spin::cuda {
namespace {

class CudaStream final : public Stream {
 public:
  explicit CudaStream(int priority) {
    SPIN_CUDA_CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority));
  }
  ~CudaStream() override {
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
  cudaStream_t stream = nullptr;
};

class CudaEvent final : public Event {
 public:
  CudaEvent() { SPIN_CUDA_CHECK(cudaEventCreate(&event)); }
  ~CudaEvent() override { cudaEventDestroy(event); }
  cudaEvent_t event = nullptr;
};

absl::StatusOr<void*> AllocateHost(int64_t bytes) {
  void* data = std::aligned_alloc(4096, static_cast<size_t>(RoundUp(bytes, 4096)));
  if (data == nullptr) return ResourceExhausted("cannot allocate %s", FormatBytes(bytes));
  return data;
}

cudaEvent_t EventOf(Event& event) {
  return static_cast<CudaEvent&>(event).event;
}

}  // namespace

cudaStream_t StreamOf(Stream& stream) {
  return static_cast<CudaStream&>(stream).stream;
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count == 0) error = cudaErrorNoDevice;
  if (error == cudaSuccess) error = cudaFree(nullptr);  // makes the context, with its errors
  if (error != cudaSuccess) {
    cudaGetLastError();
    return FailedPrecondition("no usable CUDA GPU: %s", cudaGetErrorString(error));
  }
  int device = 0;
  cudaDeviceProp properties = {};
  SPIN_CUDA_CHECK(cudaGetDevice(&device));
  SPIN_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  if (error = FindDeviceCode(); error != cudaSuccess) {
    cudaGetLastError();
    return FailedPrecondition(
        "this binary has no code for the %s (sm_%d%d): %s; build with --config=all_archs",
        properties.name, properties.major, properties.minor, cudaGetErrorString(error));
  }
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  SPIN_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  std::unique_ptr<CudaDevice> result(new CudaDevice);
  result->info_ = {
      .name = absl::StrFormat("%s (sm_%d%d, %d SMs, %s)", properties.name, properties.major,
                              properties.minor, properties.multiProcessorCount,
                              FormatBytes(static_cast<int64_t>(total_bytes))),
      .captures_steps = true,
      .overlaps_streams = true,
      .prefill_tile_tokens = 8192,
      .device_bytes = static_cast<int64_t>(free_bytes),
      .host_bytes = MemoryLimitBytes()};
  return result;
}

CudaDevice::CudaDevice() : host_memory_(MemoryLimitBytes()) {}

CudaDevice::~CudaDevice() {
  for (const auto& [key, graph] : steps_) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
}

absl::StatusOr<Buffer> CudaDevice::Allocate(MemoryKind kind, int64_t bytes,
                                            AllocationProgress progress) {
  SPIN_CHECK_GE(bytes, 0);
  if (bytes == 0) return Buffer();
  if (kind != MemoryKind::kDevice) {
    // Before a page is touched: a pool beyond the machine's memory would have the process killed.
    SPIN_RETURN_IF_ERROR(host_memory_.Take(bytes));
    absl::StatusOr<void*> data =
        kind == MemoryKind::kPinned ? AllocatePinned(bytes, progress) : AllocateHost(bytes);
    if (data.ok()) return Buffer(this, kind, *data, bytes);
    host_memory_.Give(bytes);
    return data.status();
  }
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) {
    cudaGetLastError();
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    SPIN_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    return ResourceExhausted("cannot allocate %s on the GPU: %s of %s are free (%s)",
                             FormatBytes(bytes), FormatBytes(static_cast<int64_t>(free_bytes)),
                             FormatBytes(static_cast<int64_t>(total_bytes)),
                             cudaGetErrorString(error));
  }
  return Buffer(this, kind, data, bytes);
}

void CudaDevice::Free(MemoryKind kind, void* data, int64_t bytes) noexcept {
  if (kind != MemoryKind::kDevice) host_memory_.Give(bytes);
  switch (kind) {
    case MemoryKind::kDevice:
      cudaFree(data);
      return;
    case MemoryKind::kPinned:
      FreePinned(data, bytes);
      return;
    case MemoryKind::kHost:
      std::free(data);
      return;
  }
}

std::unique_ptr<Stream> CudaDevice::CreateStream(const char* /*name*/, StreamPriority priority) {
  int least = 0, greatest = 0;
  SPIN_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  return std::make_unique<CudaStream>(priority == StreamPriority::kHigh ? greatest : least);
}

std::unique_ptr<Event> CudaDevice::CreateEvent() {
  return std::make_unique<CudaEvent>();
}

void CudaDevice::Copy(void* dst, const void* src, int64_t bytes, Stream& stream) {
  SPIN_CUDA_CHECK(
      cudaMemcpyAsync(dst, src, static_cast<size_t>(bytes), cudaMemcpyDefault, StreamOf(stream)));
}

void CudaDevice::Fill(void* dst, uint8_t value, int64_t bytes, Stream& stream) {
  SPIN_CUDA_CHECK(cudaMemsetAsync(dst, value, static_cast<size_t>(bytes), StreamOf(stream)));
}

void CudaDevice::Record(Event& event, Stream& stream) {
  SPIN_CUDA_CHECK(cudaEventRecord(EventOf(event), StreamOf(stream)));
}

void CudaDevice::Wait(Stream& stream, Event& event) {
  SPIN_CUDA_CHECK(cudaStreamWaitEvent(StreamOf(stream), EventOf(event), 0));
}

bool CudaDevice::Passed(Event& event) {
  const cudaError_t status = cudaEventQuery(EventOf(event));
  if (status == cudaErrorNotReady) {
    cudaGetLastError();  // an answer, not an error: the next launch must not find it
    return false;
  }
  SPIN_CUDA_CHECK(status);
  return true;
}

void CudaDevice::Synchronize(Event& event) {
  SPIN_CUDA_CHECK(cudaEventSynchronize(EventOf(event)));
}

void CudaDevice::Synchronize(Stream& stream) {
  SPIN_CUDA_CHECK(cudaStreamSynchronize(StreamOf(stream)));
}

int64_t CudaDevice::ElapsedNs(Event& begin, Event& end) {
  float milliseconds = 0;
  SPIN_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, EventOf(begin), EventOf(end)));
  return static_cast<int64_t>(milliseconds * 1e6);
}

void CudaDevice::Replay(uint64_t key, Stream& stream, absl::FunctionRef<void()> enqueue) {
  const auto [step, is_new] = steps_.try_emplace(key, nullptr);
  if (is_new) {
    enqueue();
    return;
  }
  if (step->second == nullptr) {
    cudaGraph_t graph = nullptr;
    SPIN_CUDA_CHECK(cudaStreamBeginCapture(StreamOf(stream), cudaStreamCaptureModeThreadLocal));
    enqueue();
    SPIN_CUDA_CHECK(cudaStreamEndCapture(StreamOf(stream), &graph));
    SPIN_CUDA_CHECK(cudaGraphInstantiate(&step->second, graph, 0));
    SPIN_CUDA_CHECK(cudaGraphDestroy(graph));
  }
  SPIN_CUDA_CHECK(cudaGraphLaunch(step->second, StreamOf(stream)));
}

}  // namespace spin::cuda
