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
  Upload() : status_(Prepare()) {}
  ~Upload() {
    for (Half& half : halves_) {
      if (half.data != nullptr) cudaFreeHost(half.data);
      if (half.sent != nullptr) cudaEventDestroy(half.sent);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  const absl::Status& status() const { return status_; }

  // REQUIRES: status() is OK.
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

  absl::Status Prepare() {
    cudaError_t error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    for (Half& half : halves_) {
      if (error == cudaSuccess) error = cudaHostAlloc(&half.data, kHalfBytes, cudaHostAllocDefault);
      if (error == cudaSuccess) {
        error = cudaEventCreateWithFlags(&half.sent, cudaEventDisableTiming);
      }
    }
    if (error == cudaSuccess) return absl::OkStatus();
    cudaGetLastError();  // so that the next check does not see it
    return ResourceExhausted("no pinned memory to upload weights through: %s",
                             cudaGetErrorString(error));
  }

  cudaStream_t stream_ = nullptr;
  Half halves_[2];
  int next_ = 0;
  const absl::Status status_;  // last: Prepare fills the others
};

}  // namespace

absl::Status UploadConverted(void* dst, DType dtype, const void* src, DType src_dtype,
                             int64_t elements) {
  thread_local Upload upload;
  SPIN_RETURN_IF_ERROR(upload.status());
  upload.Run(static_cast<char*>(dst), dtype, static_cast<const char*>(src), src_dtype, elements);
  return absl::OkStatus();
}

}  // namespace spin::cuda
