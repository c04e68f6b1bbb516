#include "kernels/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "common/math.h"
#include "common/units.h"

namespace spin::cuda {
namespace {

constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kSmallPage = 4096;
constexpr int64_t kBytesPerThread = 64 << 20;  // a thread is worth starting for this much

constexpr auto kReportEvery = std::chrono::seconds(1);

// Reports from a thread of its own, since both the touching and the registering block, until it is destroyed. Memory
// that is there within the first interval is never reported.
class Reporter {
 public:
  Reporter(int64_t bytes, AllocationProgress progress)
      : thread_([this, bytes, progress] {
          std::unique_lock lock(mutex_);
          while (!ended_.wait_for(lock, kReportEvery, [&] { return end_; })) {
            progress(ready_.load(std::memory_order_relaxed), bytes);
          }
        }) {}
  ~Reporter() {
    {
      const std::lock_guard lock(mutex_);
      end_ = true;
    }
    ended_.notify_one();
    thread_.join();
  }
  std::atomic<int64_t>& ready() { return ready_; }

 private:
  std::atomic<int64_t> ready_ = 0;
  std::mutex mutex_;  // guards end_
  std::condition_variable ended_;
  bool end_ = false;
  std::thread thread_;  // last: it uses the others
};

// Writes one byte of every small page: where the system gave huge pages, the first write brings 2 MiB. `ready` counts
// the bytes.
void TouchAll(char* data, int64_t bytes, std::atomic<int64_t>& ready) {
  const int64_t most = std::max<int64_t>(std::thread::hardware_concurrency(), 1);
  const int64_t threads = std::clamp<int64_t>(bytes / kBytesPerThread, 1, most);
  const int64_t slice = RoundUp(CeilDiv(bytes, threads), kHugePage);
  std::vector<std::thread> workers;
  for (int64_t begin = 0; begin < bytes; begin += slice) {
    workers.emplace_back([=, &ready] {
      const int64_t end = std::min(bytes, begin + slice);
      for (int64_t huge = begin; huge < end; huge += kHugePage) {
        const int64_t huge_end = std::min(end, huge + kHugePage);
        for (int64_t at = huge; at < huge_end; at += kSmallPage) {
          *static_cast<volatile char*>(data + at) = 0;
        }
        ready.fetch_add(huge_end - huge, std::memory_order_relaxed);
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

absl::StatusOr<void*> AllocatePinned(int64_t bytes, AllocationProgress progress) {
  const int64_t size = MappedBytes(bytes);
  char* data = MapAligned(size);
  if (data == nullptr) {
    return ResourceExhausted("cannot map %s of host memory: %s", FormatBytes(bytes),
                             std::strerror(errno));
  }
  // Advice: where the system has no huge pages, small ones serve.
  if (size >= kHugePage) madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);
  Reporter reporter(size, progress);
  TouchAll(data, size, reporter.ready());
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
