// Linear layers through cuBLASLt, or the own kernel for a few rows: c = a w^T, or c += a w^T.
//
// One plan a shape (m, n, k, types): layouts and an algorithm. Where the shape of a decode step or a full tile is met
// outside a capture, the library's best candidates, for it and for more rows, and the own kernel are timed on cold
// weights and the fastest is kept. Once start-up is over nothing is timed: a few rows are computed like the next more
// that were; else the library's first suggestion serves.
// Weights are row-major [n][k]. Engine thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "common/status.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/params.h"

namespace spin::cuda {

class Gemm {
 public:
  // `sm_target`: multiprocessors that a product may count on; 0: all.
  static absl::StatusOr<std::unique_ptr<Gemm>> Create(int sm_target = 0);
  ~Gemm();

  void Run(const GemmParams& p, cudaStream_t stream);
  // From now on no product is timed.
  void EndTiming() { may_time_ = false; }

  // m, n, k, lda, ldc, dtype, c_dtype, accumulate, sm_target
  using Key = std::tuple<int32_t, int32_t, int32_t, int64_t, int64_t, DType, DType, bool, int>;

  // Who computes a product.
  struct Algorithm {
    bool own = false;  // skinny_gemm.cu
    cublasLtMatmulAlgo_t library = {};
  };

 private:
  struct Plan {
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t w = nullptr, a = nullptr, c = nullptr;
    Algorithm algorithm;
    bool tuned = false;
  };

  Gemm(const CublasLt* lt, int sm_target) : lt_(lt), sm_target_(sm_target) {}
  absl::Status Allocate();
  Plan MakePlan(const GemmParams& p) const;
  void Suggest(const GemmParams& p, const Plan& plan, int32_t m, int count,
               std::vector<Algorithm>& out) const;
  bool Runs(const GemmParams& p, const Plan& plan, const Algorithm& algorithm) const;
  void ChooseAlgorithm(const GemmParams& p, bool may_time, cudaStream_t stream, Plan& plan);
  void TimeCandidates(const GemmParams& p, std::span<const Algorithm> candidates,
                      cudaStream_t stream, Plan& plan);
  float TimeOnce(const GemmParams& p, const Plan& plan, const Algorithm& algorithm, void* out,
                 cudaStream_t stream);
  cublasStatus_t Enqueue(const GemmParams& p, const Plan& plan, const Algorithm& algorithm,
                         void* out, cudaStream_t stream) const;
  void DestroyPlan(Plan& plan) const;
  void Check(cublasStatus_t status, const GemmParams& p) const;

  const CublasLt* lt_;
  const int sm_target_;
  bool may_time_ = true;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  void* scratch_ =
      nullptr;  // where a timed product that accumulates writes; also flushes the cache
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace spin::cuda
