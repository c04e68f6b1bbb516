// Finding a library of the CUDA toolkit at run time.
#pragma once

#include "common/status.h"

namespace spin::cuda {

// The handle of the library `file`: of the one that the environment names in `variable` alone, if it names any; else of
// the one that the dynamic linker finds, else of the one in the toolkit's usual place. NotFound with what was tried.
absl::StatusOr<void*> OpenSharedLibrary(const char* file, const char* variable);

}  // namespace spin::cuda
