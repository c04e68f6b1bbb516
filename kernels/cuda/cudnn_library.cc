#include "kernels/cuda/cudnn_library.h"

#include "kernels/cuda/shared_library.h"

namespace spin::cuda {
namespace {

absl::StatusOr<void*> Open() {
  const absl::StatusOr<void*> library = OpenSharedLibrary("libcudnn.so.9", "SPIN_CUDNN");
  if (!library.ok()) return NotFound("no cuDNN (%s)", MessageOf(library.status()));
  return library;
}

}  // namespace

absl::StatusOr<void*> OpenCudnnLibrary() {
  static const absl::StatusOr<void*> library = Open();
  return library;
}

}  // namespace spin::cuda
