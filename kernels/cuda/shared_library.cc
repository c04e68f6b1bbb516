#include "kernels/cuda/shared_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace spin::cuda {

absl::StatusOr<void*> OpenSharedLibrary(const char* file, const char* variable) {
  std::vector<std::string> names = {file, std::string("/usr/local/cuda/lib64/") + file};
  if (const char* named = std::getenv(variable)) names = {named};
  std::string tried;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* why = dlerror();
    tried += std::string(tried.empty() ? "" : "; ") + (why != nullptr ? why : name.c_str());
  }
  return NotFound("%s", tried);
}

}  // namespace spin::cuda
