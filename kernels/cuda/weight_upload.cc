#include "kernels/cuda/weight_upload.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/cuda/check.h"

namespace spin::cuda {
namespace {

constexpr int64_t kHalfBytes = 8 << 20;  // one half is filled while the other travels

// A thread's way to the device: two pinned halves and a stream.
class Upload {
 public:
  Upload() {
    SPIN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    for (Half& half : halves_) {
      SPIN_CUDA_CHECK(cudaHostAlloc(&half.data, kHalfBytes, cudaHostAllocDefault));
      SPIN_CUDA_CHECK(cudaEventCreateWithFlags(&half.sent, cudaEventDisableTiming));
    }
  }
  ~Upload() {
    for (Half& half : halves_) {
      cudaFreeHost(half.data);
      cudaEventDestroy(half.sent);
    }
    cudaStreamDestroy(stream_);
  }

  void Run(char* dst, DType dtype, const char* src, DType src_dtype, int64_t elements) {
    const int64_t chunk = kHalfBytes / SizeOf(dtype);
    for (int64_t begin = 0; begin < elements; begin += chunk) {
      Half& half = halves_[next_ ^= 1];
      SPIN_CUDA_CHECK(cudaEventSynchronize(half.sent));
      const int64_t count = std::min(chunk, elements - begin);
      ConvertElements(half.data, dtype, src + begin * SizeOf(src_dtype), src_dtype, count);
      SPIN_CUDA_CHECK(cudaMemcpyAsync(dst + begin * SizeOf(dtype), half.data,
                                      static_cast<size_t>(count * SizeOf(dtype)),
                                      cudaMemcpyHostToDevice, stream_));
      SPIN_CUDA_CHECK(cudaEventRecord(half.sent, stream_));
    }
    SPIN_CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

 private:
  struct Half {
    void* data = nullptr;
    cudaEvent_t sent = nullptr;
  };

  cudaStream_t stream_ = nullptr;
  Half halves_[2];
  int next_ = 0;
};

}  // namespace

void UploadConverted(void* dst, DType dtype, const void* src, DType src_dtype, int64_t elements) {
  thread_local Upload upload;
  upload.Run(static_cast<char*>(dst), dtype, static_cast<const char*>(src), src_dtype, elements);
}

}  // namespace spin::cuda
