// The cuBLASLt functions that the GEMM calls, found in the shared library when the backend is made: one binary
// starts on machines with and without CUDA.
#pragma once

#include <cublasLt.h>

#include "common/status.h"

namespace spin::cuda {

struct CublasLt {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) check_algorithm = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_desc = nullptr;
  decltype(&cublasLtMatmulDescDestroy) destroy_desc = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_desc = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
};

// Of the file that the environment names in SPIN_CUBLASLT, an error where it cannot be loaded; else from where the
// loader or the toolkit keeps the library. Loaded once a process.
absl::StatusOr<const CublasLt*> LoadCublasLt();

}  // namespace spin::cuda
