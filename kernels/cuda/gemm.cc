#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/families.h"

namespace spin::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
constexpr int64_t kTimingBytes = int64_t{160} << 20;  // more than any L2
constexpr int kCandidates = 16;
constexpr int kRepeats = 3;
constexpr int32_t kTimedRows = 256;       // decode steps: products this small are timed
constexpr int32_t kTimedTileRows = 1024;  // and full prefill tiles, multiples of this
constexpr std::size_t kMaxPlans = 4096;   // odd last tiles make plans; all are dropped beyond

cudaDataType_t TypeOf(DType type) {
  return type == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}

bool Capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  SPIN_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

// Is it worth timing, and is there room for its output?
bool Timed(const GemmParams& p) {
  if (p.m > kTimedRows && p.m % kTimedTileRows != 0) return false;
  return !p.accumulate || int64_t{p.m} * p.ldc * SizeOf(p.c_dtype) <= kTimingBytes;
}

// The fastest algorithm of each shape that was timed: kept for the process, so that whatever is made later computes the
// same bits.
struct Timings {
  std::mutex mutex;  // guards algorithms
  std::map<Gemm::Key, Gemm::Algorithm> algorithms;
};

Timings& ProcessTimings() {
  static Timings timings;
  return timings;
}

bool FindTimed(const Gemm::Key& key, Gemm::Algorithm& algorithm) {
  Timings& timings = ProcessTimings();
  const std::lock_guard lock(timings.mutex);
  const auto at = timings.algorithms.find(key);
  if (at == timings.algorithms.end()) return false;
  algorithm = at->second;
  return true;
}

// Of the same product with the fewest more rows.
bool FindTimedAbove(const Gemm::Key& key, Gemm::Algorithm& algorithm) {
  Timings& timings = ProcessTimings();
  const std::lock_guard lock(timings.mutex);
  for (auto at = timings.algorithms.upper_bound(key); at != timings.algorithms.end(); ++at) {
    Gemm::Key other = at->first;
    if (std::get<0>(other) > kTimedRows) return false;
    std::get<0>(other) = std::get<0>(key);
    if (other != key) continue;
    algorithm = at->second;
    return true;
  }
  return false;
}

void KeepTimed(const Gemm::Key& key, const Gemm::Algorithm& algorithm) {
  Timings& timings = ProcessTimings();
  const std::lock_guard lock(timings.mutex);
  timings.algorithms.emplace(key, algorithm);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gemm>> Gemm::Create(int sm_target) {
  SPIN_ASSIGN_OR_RETURN(const CublasLt* lt, LoadCublasLt());
  std::unique_ptr<Gemm> gemm(new Gemm(lt, sm_target));
  SPIN_RETURN_IF_ERROR(gemm->Allocate());
  return gemm;
}

absl::Status Gemm::Allocate() {
  if (const cublasStatus_t status = lt_->create(&handle_); status != CUBLAS_STATUS_SUCCESS) {
    return FailedPrecondition("cuBLASLt: %s", lt_->status_string(status));
  }
  if (cudaMalloc(&workspace_, kWorkspaceBytes) != cudaSuccess ||
      cudaMalloc(&scratch_, kTimingBytes) != cudaSuccess) {
    cudaGetLastError();
    return ResourceExhausted("no GPU memory for cuBLASLt's workspace");
  }
  SPIN_CUDA_CHECK(cudaEventCreate(&begin_));
  SPIN_CUDA_CHECK(cudaEventCreate(&end_));
  return absl::OkStatus();
}

Gemm::~Gemm() {
  for (auto& [key, plan] : plans_) DestroyPlan(plan);
  if (handle_ != nullptr) lt_->destroy(handle_);
  cudaFree(workspace_);
  cudaFree(scratch_);
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

void Gemm::DestroyPlan(Plan& plan) const {
  lt_->destroy_desc(plan.desc);
  for (cublasLtMatrixLayout_t layout : {plan.w, plan.a, plan.c}) lt_->destroy_layout(layout);
}

void Gemm::Check(cublasStatus_t status, const GemmParams& p) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  internal::CheckFailed(__FILE__, __LINE__,
                        std::string("cuBLASLt, m ") + std::to_string(p.m) + " n " +
                            std::to_string(p.w.n) + " k " + std::to_string(p.w.k) + ": " +
                            lt_->status_string(status));
}

// cuBLAS is column-major: c^T [n x m] = (w^T)^T a^T, with w stored as [k x n] and a as [k x m].
Gemm::Plan Gemm::MakePlan(const GemmParams& p) const {
  Plan plan;
  const cudaDataType_t type = TypeOf(p.w.dtype);
  Check(lt_->create_desc(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), p);
  const cublasOperation_t transpose = CUBLAS_OP_T;
  Check(lt_->set_desc(plan.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)), p);
  if (sm_target_ > 0) {
    const int32_t target = sm_target_;
    Check(lt_->set_desc(plan.desc, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &target, sizeof(target)),
          p);
  }
  const auto rows = [](int32_t n) { return static_cast<uint64_t>(n); };
  Check(lt_->create_layout(&plan.w, type, rows(p.w.k), rows(p.w.n), p.w.k), p);
  Check(lt_->create_layout(&plan.a, type, rows(p.w.k), rows(p.m), p.lda), p);
  Check(lt_->create_layout(&plan.c, TypeOf(p.c_dtype), rows(p.w.n), rows(p.m), p.ldc), p);
  return plan;
}

cublasStatus_t Gemm::Enqueue(const GemmParams& p, const Plan& plan, const Algorithm& algorithm,
                             void* out, cudaStream_t stream) const {
  if (algorithm.own) {
    GemmParams own = p;
    own.c = out;
    SkinnyGemm(own, stream);
    return CUBLAS_STATUS_SUCCESS;
  }
  const float alpha = 1;
  const float beta = p.accumulate ? 1 : 0;
  return lt_->matmul(handle_, plan.desc, &alpha, p.w.data, plan.w, p.a, plan.a, &beta, p.c, plan.c,
                     out, plan.c, &algorithm.library, workspace_, kWorkspaceBytes, stream);
}

// Microseconds of one product behind a small kernel, with the cache full of other data; a great number when it does
// not run.
float Gemm::TimeOnce(const GemmParams& p, const Plan& plan, const Algorithm& algorithm, void* out,
                     cudaStream_t stream) {
  SPIN_CUDA_CHECK(cudaMemsetAsync(scratch_, 0, kTimingBytes, stream));
  SPIN_CUDA_CHECK(cudaEventRecord(begin_, stream));
  PrecedeGemm(stream);
  if (Enqueue(p, plan, algorithm, out, stream) != CUBLAS_STATUS_SUCCESS) return 1e30f;
  SPIN_CUDA_CHECK(cudaEventRecord(end_, stream));
  SPIN_CUDA_CHECK(cudaEventSynchronize(end_));
  float milliseconds = 0;
  SPIN_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
  return milliseconds * 1000;
}

// Whether the product in `plan` can be computed so.
bool Gemm::Runs(const GemmParams& p, const Plan& plan, const Algorithm& algorithm) const {
  if (algorithm.own) return SkinnyGemmServes(p);
  cublasLtMatmulHeuristicResult_t checked;
  return lt_->check_algorithm(handle_, plan.desc, plan.w, plan.a, plan.c, plan.c,
                              &algorithm.library, &checked) == CUBLAS_STATUS_SUCCESS &&
         checked.workspaceSize <= static_cast<std::size_t>(kWorkspaceBytes);
}

// What the library suggests for the product in `plan`, as if it had m rows: at most `count` algorithms that run with as
// many rows as it has.
void Gemm::Suggest(const GemmParams& p, const Plan& plan, int32_t m, int count,
                   std::vector<Algorithm>& out) const {
  cublasLtMatmulPreference_t preference = nullptr;
  Check(lt_->create_preference(&preference), p);
  const uint64_t room = kWorkspaceBytes;
  Check(lt_->set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room,
                            sizeof(room)),
        p);
  GemmParams other = p;
  other.m = m;
  Plan suggested = MakePlan(other);
  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<std::size_t>(count));
  int num_found = 0;
  const cublasStatus_t status =
      lt_->get_heuristic(handle_, suggested.desc, suggested.w, suggested.a, suggested.c,
                         suggested.c, preference, count, found.data(), &num_found);
  if (m == p.m) Check(status, p);
  for (int i = 0; i < num_found; ++i) {
    const cublasLtMatmulAlgo_t& algorithm = found[static_cast<std::size_t>(i)].algo;
    const auto same = [&](const Algorithm& a) {
      return std::memcmp(&a.library, &algorithm, sizeof(algorithm)) == 0;
    };
    if (std::ranges::none_of(out, same) && Runs(p, plan, {.library = algorithm})) {
      out.push_back({.library = algorithm});
    }
  }
  DestroyPlan(suggested);
  lt_->destroy_preference(preference);
}

void Gemm::ChooseAlgorithm(const GemmParams& p, bool may_time, cudaStream_t stream, Plan& plan) {
  std::vector<Algorithm> candidates;
  Suggest(p, plan, p.m, may_time ? kCandidates : 1, candidates);
  SPIN_CHECK(!candidates.empty());
  plan.algorithm = candidates[0];
  plan.tuned = may_time;
  if (!may_time) return;
  if (p.m <= kTimedRows) {
    // Of few rows the library leaves out some that are faster.
    for (const int32_t m : {64, 128, 256}) {
      if (m > p.m) Suggest(p, plan, m, kCandidates / 2, candidates);
    }
  }
  if (SkinnyGemmServes(p)) candidates.push_back({.own = true});
  if (candidates.size() > 1) TimeCandidates(p, candidates, stream, plan);
}

void Gemm::TimeCandidates(const GemmParams& p, std::span<const Algorithm> candidates,
                          cudaStream_t stream, Plan& plan) {
  // A product that accumulates is timed into scratch: its output must change once only.
  void* out = p.accumulate ? scratch_ : p.c;
  float best = 1e30f;
  for (const Algorithm& candidate : candidates) {
    float time = TimeOnce(p, plan, candidate, out, stream);
    for (int repeat = 0; repeat < kRepeats && time < 1.2f * best; ++repeat) {
      time = std::min(time, TimeOnce(p, plan, candidate, out, stream));
    }
    if (time >= best) continue;
    best = time;
    plan.algorithm = candidate;
  }
}

void Gemm::Run(const GemmParams& p, cudaStream_t stream) {
  const Key key = {p.m, p.w.n, p.w.k, p.lda, p.ldc, p.w.dtype, p.c_dtype, p.accumulate, sm_target_};
  auto at = plans_.find(key);
  const bool may_time = may_time_ && Timed(p) && !Capturing(stream);
  if (at == plans_.end() || (may_time && !at->second.tuned)) {
    if (at == plans_.end()) {
      if (plans_.size() >= kMaxPlans) {
        for (auto& [old, plan] : plans_) DestroyPlan(plan);
        plans_.clear();
      }
      at = plans_.emplace(key, MakePlan(p)).first;
    }
    Plan& plan = at->second;
    Algorithm above;
    if (FindTimed(key, plan.algorithm)) {
      plan.tuned = true;
    } else if (!may_time_ && FindTimedAbove(key, above) && Runs(p, plan, above)) {
      plan.algorithm = above;
    } else {
      ChooseAlgorithm(p, may_time, stream, plan);
      if (plan.tuned) KeepTimed(key, plan.algorithm);
    }
  }
  Check(Enqueue(p, at->second, at->second.algorithm, p.c, stream), p);
}

}  // namespace spin::cuda
