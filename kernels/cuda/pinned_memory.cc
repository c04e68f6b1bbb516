#include "kernels/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "common/math.h"
#include "common/units.h"

namespace spin::cuda {
namespace {

constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kSmallPage = 4096;
constexpr int64_t kBytesPerThread = 64 << 20;  // a thread is worth starting for this much

// Writes one byte of every small page: where the system gave huge pages, the first write brings 2 MiB.
void TouchAll(char* data, int64_t bytes) {
  const int64_t most = std::max<int64_t>(std::thread::hardware_concurrency(), 1);
  const int64_t threads = std::clamp<int64_t>(bytes / kBytesPerThread, 1, most);
  const int64_t slice = RoundUp(CeilDiv(bytes, threads), kHugePage);
  std::vector<std::thread> workers;
  for (int64_t begin = 0; begin < bytes; begin += slice) {
    workers.emplace_back([=] {
      const int64_t end = std::min(bytes, begin + slice);
      for (int64_t at = begin; at < end; at += kSmallPage) {
        *static_cast<volatile char*>(data + at) = 0;
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
}

// Reserves `bytes` at a huge page's boundary: maps more, gives the ends back.
char* MapAligned(int64_t bytes) {
  const int64_t room = bytes + kHugePage;
  void* mapped = mmap(nullptr, static_cast<size_t>(room), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(mapped);
  const int64_t head = (kHugePage - reinterpret_cast<intptr_t>(begin) % kHugePage) % kHugePage;
  if (head > 0) munmap(begin, static_cast<size_t>(head));
  if (room - head > bytes) munmap(begin + head + bytes, static_cast<size_t>(room - head - bytes));
  return begin + head;
}

int64_t MappedBytes(int64_t bytes) {
  return RoundUp(bytes, bytes >= kHugePage ? kHugePage : kSmallPage);
}

}  // namespace

absl::StatusOr<void*> AllocatePinned(int64_t bytes) {
  const int64_t size = MappedBytes(bytes);
  char* data = MapAligned(size);
  if (data == nullptr) {
    return ResourceExhausted("cannot map %s of host memory: %s", FormatBytes(bytes),
                             std::strerror(errno));
  }
  // Advice: where the system has no huge pages, small ones serve.
  if (size >= kHugePage) madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);
  TouchAll(data, size);
  const cudaError_t error = cudaHostRegister(data, static_cast<size_t>(size),
                                             cudaHostRegisterPortable | cudaHostRegisterMapped);
  if (error != cudaSuccess) {
    cudaGetLastError();  // so that the next check does not see it
    munmap(data, static_cast<size_t>(size));
    return ResourceExhausted("cannot pin %s of host memory: %s (see ulimit -l)", FormatBytes(bytes),
                             cudaGetErrorString(error));
  }
  return data;
}

void FreePinned(void* data, int64_t bytes) noexcept {
  cudaHostUnregister(data);
  munmap(data, static_cast<size_t>(MappedBytes(bytes)));
}

}  // namespace spin::cuda
