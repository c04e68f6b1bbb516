// The backends of a build with CUDA: "auto" takes a GPU where there is one, "cuda" insists on it.
#include "kernels/backend.h"

#include "common/logging.h"
#include "kernels/backend_on_cpu.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_ops.h"

namespace spin {
namespace {

absl::StatusOr<Backend> CreateCudaBackend(const BackendOptions& options) {
  Backend backend;
  SPIN_ASSIGN_OR_RETURN(backend.device, cuda::CudaDevice::Create());
  SPIN_ASSIGN_OR_RETURN(backend.ops, cuda::CudaOps::Create(options.gemm_sms));
  return backend;
}

}  // namespace

absl::StatusOr<Backend> CreateBackend(const BackendOptions& options) {
  if (options.device == "cpu") return CreateCpuBackend(options);
  if (options.device != "auto" && options.device != "cuda") {
    return InvalidArgument("device \"%s\": must be auto, cpu or cuda", options.device);
  }
  absl::StatusOr<Backend> backend = CreateCudaBackend(options);
  if (backend.ok()) return backend;
  if (options.device == "cuda") return Annotate(backend.status(), "device \"cuda\"");
  SPIN_LOG(WARNING, "device \"auto\": the CPU, since %s", MessageOf(backend.status()));
  return CreateCpuBackend(options);
}

}  // namespace spin
