// The CPU's pair of Device and Ops, which every build has.
#pragma once

#include "kernels/backend.h"

namespace spin {

// InvalidArgument for a number of threads that makes no sense. `options.device` is not looked at.
absl::StatusOr<Backend> CreateCpuBackend(const BackendOptions& options);

}  // namespace spin
