#include "kernels/backend_on_cpu.h"

#include "common/host_limits.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_ops.h"

namespace spin {

absl::StatusOr<Backend> CreateCpuBackend(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > 1024) {
    return InvalidArgument("%d threads: must be 0 (all cores) to 1024", options.threads);
  }
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  Backend backend;
  backend.device = std::make_unique<cpu::CpuDevice>(threads, options.inline_streams);
  backend.ops = std::make_unique<cpu::CpuOps>(threads);
  return backend;
}

}  // namespace spin
