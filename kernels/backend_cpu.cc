// The backends of a build without CUDA.
#include "kernels/backend.h"
#include "kernels/backend_on_cpu.h"

namespace spin {

absl::StatusOr<Backend> CreateBackend(const BackendOptions& options) {
  if (options.device == "cuda") {
    return FailedPrecondition(
        "device \"cuda\": this build has no CUDA; build with --config=cuda, or choose device "
        "\"cpu\"");
  }
  if (options.device != "auto" && options.device != "cpu") {
    return InvalidArgument("device \"%s\": must be auto, cpu or cuda", options.device);
  }
  return CreateCpuBackend(options);
}

}  // namespace spin
