#include "kernels/cuda/code_probe.h"

#include <cuda_runtime.h>

namespace spin::cuda {
namespace {

__global__ void ProbeKernel() {}

}  // namespace

cudaError_t FindDeviceCode() {
  cudaFuncAttributes attributes = {};
  return cudaFuncGetAttributes(&attributes, ProbeKernel);
}

}  // namespace spin::cuda
