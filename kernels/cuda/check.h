// A CUDA call that only a bug or a broken device can fail: aborts with the call and CUDA's words. Calls that may fail
// for an operator's reasons (allocation, no device) return absl::Status instead.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "common/check.h"

#define SPIN_CUDA_CHECK(call)                                                                   \
  do {                                                                                          \
    const cudaError_t spin_error_ = (call);                                                     \
    if (spin_error_ != cudaSuccess) {                                                           \
      ::spin::internal::CheckFailed(__FILE__, __LINE__,                                         \
                                    std::string(#call ": ") + cudaGetErrorString(spin_error_)); \
    }                                                                                           \
  } while (false)
