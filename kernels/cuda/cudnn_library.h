// Finding libcudnn at run time.
#pragma once

#include "common/status.h"

namespace spin::cuda {

// The handle of libcudnn.so.9, opened by the first call and never closed: of the file that the environment names in
// SPIN_CUDNN (one that does not exist: do without cuDNN), else of the one that the dynamic linker finds, else of the
// one in the CUDA toolkit's usual place.
absl::StatusOr<void*> OpenCudnnLibrary();

}  // namespace spin::cuda
