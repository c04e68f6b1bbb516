#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>

#include "kernels/cuda/shared_library.h"

namespace spin::cuda {
namespace {

absl::StatusOr<void*> OpenLibrary() {
  const absl::StatusOr<void*> library = OpenSharedLibrary("libcublasLt.so.13", "SPIN_CUBLASLT");
  if (library.ok()) return library;
  return FailedPrecondition(
      "no cuBLASLt (%s): put the CUDA 13 toolkit's lib64 on LD_LIBRARY_PATH, or set SPIN_CUBLASLT "
      "to the file",
      MessageOf(library.status()));
}

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<CublasLt> Load() {
  SPIN_ASSIGN_OR_RETURN(void* const library, OpenLibrary());
  CublasLt lt;
  const bool found = Find(library, "cublasLtCreate", lt.create) &&
                     Find(library, "cublasLtDestroy", lt.destroy) &&
                     Find(library, "cublasLtMatmul", lt.matmul) &&
                     Find(library, "cublasLtMatmulAlgoGetHeuristic", lt.get_heuristic) &&
                     Find(library, "cublasLtMatmulAlgoCheck", lt.check_algorithm) &&
                     Find(library, "cublasLtMatmulDescCreate", lt.create_desc) &&
                     Find(library, "cublasLtMatmulDescDestroy", lt.destroy_desc) &&
                     Find(library, "cublasLtMatmulDescSetAttribute", lt.set_desc) &&
                     Find(library, "cublasLtMatrixLayoutCreate", lt.create_layout) &&
                     Find(library, "cublasLtMatrixLayoutDestroy", lt.destroy_layout) &&
                     Find(library, "cublasLtMatmulPreferenceCreate", lt.create_preference) &&
                     Find(library, "cublasLtMatmulPreferenceDestroy", lt.destroy_preference) &&
                     Find(library, "cublasLtMatmulPreferenceSetAttribute", lt.set_preference) &&
                     Find(library, "cublasLtGetStatusString", lt.status_string);
  if (!found) return FailedPrecondition("cuBLASLt lacks a function: %s", dlerror());
  return lt;
}

}  // namespace

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const absl::StatusOr<CublasLt> library = Load();
  if (!library.ok()) return library.status();
  return &*library;
}

}  // namespace spin::cuda
