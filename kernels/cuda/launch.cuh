// How every kernel of this folder is launched, and what a kernel owes its neighbours.
//
// Launches allow programmatic dependent launch (sm_90 on): a kernel may start while the one before it in the stream
// still runs, so that its launch and its prologue cost nothing. In exchange
//   - each thread calls WaitForPredecessors() before it reads or writes global memory that the kernel before it may
//     touch, or writes any (in practice: first thing, after index arithmetic and shared-memory setup). Nobody returns
//     before it. What was written earlier may be read without: the kernel before waited for that, and only then
//     called AllowSuccessors();
//   - a kernel calls AllowSuccessors(), after its own wait, when its remaining work no longer profits from having the
//     machine to itself; the successor's wait covers the whole kernel.
// Older architectures ignore both.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/cuda/check.h"

namespace spin::cuda {

__device__ __forceinline__ void WaitForPredecessors() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void AllowSuccessors() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// A precondition in device code: stops the kernel, and the server with it.
#define SPIN_DEVICE_CHECK(condition) \
  do {                               \
    if (!(condition)) __trap();      \
  } while (false)

// The current device's multiprocessors, and whether it knows dependent launch. Read once.
struct DeviceTraits {
  int num_sms = 0;
  bool dependent_launch = false;
};

inline const DeviceTraits& Traits() {
  static const DeviceTraits traits = [] {
    int device = 0, sms = 0, major = 0;
    SPIN_CUDA_CHECK(cudaGetDevice(&device));
    SPIN_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
    SPIN_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    return DeviceTraits{sms, major >= 9};
  }();
  return traits;
}

// Beyond 48 KiB, static memory included, a kernel must ask.
constexpr size_t kFreeSharedBytes = 32 * 1024;

template <typename... Params, typename... Args>
void Launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Args... args) {
  if (shared_bytes > kFreeSharedBytes) {
    SPIN_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(shared_bytes)));
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = Traits().dependent_launch ? 1 : 0;
  SPIN_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...));
}

}  // namespace spin::cuda
