// Whether this binary has device code that the current GPU runs.
#pragma once

#include <driver_types.h>

namespace spin::cuda {

// cudaSuccess, or why there is none. All files are compiled for the same architectures, so the one kernel that is
// looked for answers for all; without asking, the first launch would abort.
cudaError_t FindDeviceCode();

}  // namespace spin::cuda
