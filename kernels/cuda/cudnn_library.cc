#include "kernels/cuda/cudnn_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace spin::cuda {
namespace {

absl::StatusOr<void*> Open() {
  std::vector<std::string> names = {"libcudnn.so.9", "/usr/local/cuda/lib64/libcudnn.so.9"};
  if (const char* named = std::getenv("SPIN_CUDNN")) names = {named};
  std::string tried;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* why = dlerror();
    tried += std::string(tried.empty() ? "" : "; ") + (why != nullptr ? why : name.c_str());
  }
  return NotFound("no cuDNN (%s)", tried);
}

}  // namespace

absl::StatusOr<void*> OpenCudnnLibrary() {
  static const absl::StatusOr<void*> library = Open();
  return library;
}

}  // namespace spin::cuda
