// For builds without cuDNN's header, or with --//tools/bazel/cuda:cudnn=false.
#include "kernels/cuda/cudnn_attention.h"

namespace spin::cuda {

absl::StatusOr<std::unique_ptr<CudnnAttention>> CudnnAttention::Load(int /*device*/) {
  return Unimplemented("this program was built without cuDNN");
}

}  // namespace spin::cuda
