// The backends of a build without CUDA.
#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/host_limits.h"

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
  if (options.threads < 0 || options.threads > 1024) {
    return InvalidArgument("%d threads: must be 0 (all cores) to 1024", options.threads);
  }
  const int threads = options.threads > 0 ? options.threads : cpu::UsableCores();
  Backend backend;
  backend.device = std::make_unique<cpu::CpuDevice>(threads, options.inline_streams);
  backend.ops = std::make_unique<cpu::CpuOps>(threads);
  return backend;
}

}  // namespace spin
