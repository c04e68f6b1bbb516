#include "kernels/cuda/cuda_ops.h"

#include <cuda_runtime.h>

#include "common/logging.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/prefill_dispatch.h"
#include "kernels/cuda/weight_upload.h"

namespace spin::cuda {

absl::StatusOr<std::unique_ptr<CudaOps>> CudaOps::Create(int gemm_sms) {
  std::unique_ptr<CudaOps> ops(new CudaOps);
  SPIN_RETURN_IF_ERROR(ops->Prepare(gemm_sms));
  return ops;
}

absl::Status CudaOps::Prepare(int gemm_sms) {
  SPIN_ASSIGN_OR_RETURN(gemm_, cuda::Gemm::Create(gemm_sms));
  const size_t ticket_bytes = kTickets * sizeof(uint32_t);
  if (cudaMalloc(&scratch_.partials, kScratchBytes) != cudaSuccess ||
      cudaMalloc(&scratch_.tickets, ticket_bytes) != cudaSuccess) {
    cudaGetLastError();
    return ResourceExhausted("no GPU memory for the kernels' scratch");
  }
  SPIN_CUDA_CHECK(cudaMemset(scratch_.tickets, 0, ticket_bytes));
  int device = 0;
  SPIN_CUDA_CHECK(cudaGetDevice(&device));
  SPIN_CUDA_CHECK(
      cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (auto cudnn = CudnnAttention::Load(device); cudnn.ok()) {
    cudnn_ = *std::move(cudnn);
  } else {
    SPIN_LOG(INFO, "prefill goes without cuDNN: %s", MessageOf(cudnn.status()));
  }
  return absl::OkStatus();
}

CudaOps::~CudaOps() {
  cudaFree(scratch_.partials);
  cudaFree(scratch_.tickets);
}

OpsLimits CudaOps::Limits(const KvGeometry& geometry) const {
  return LimitsOf(geometry, shared_bytes_);
}

int64_t CudaOps::PackedWeightBytes(int32_t n, int32_t k, DType dtype) const {
  return int64_t{n} * k * SizeOf(dtype);
}

absl::Status CudaOps::PackWeight(void* dst, int32_t /*n*/, int32_t k, DType dtype,
                                 int32_t row_begin, int32_t rows, const void* src,
                                 DType src_dtype) {
  char* to = static_cast<char*>(dst) + int64_t{row_begin} * k * SizeOf(dtype);
  return UploadConverted(to, dtype, src, src_dtype, int64_t{rows} * k);
}

void CudaOps::Gemm(const GemmParams& p, Stream& stream) {
  gemm_->Run(p, StreamOf(stream));
}

void CudaOps::ScoreSummaries(const ScoreSummariesParams& p, Stream& stream) {
  cuda::ScoreSummaries(p, scratch_, StreamOf(stream));
}

void CudaOps::SeerScore(const SeerScoreParams& p, Stream& stream) {
  cuda::SeerScore(p, scratch_, StreamOf(stream));
}

void CudaOps::ClusterEstimate(const ClusterEstimateParams& p, Stream& stream) {
  cuda::ClusterEstimate(p, scratch_, StreamOf(stream));
}

int64_t CudaOps::ClusterPrefillScratchBytes(const KvGeometry& geometry,
                                            int32_t staging_pages) const {
  return cuda::ClusterPrefillScratchBytes(geometry, staging_pages);
}

int64_t CudaOps::ClusterDecodeScratchBytes(const KvGeometry& geometry, int32_t max_batch) const {
  return cuda::ClusterDecodeScratchBytes(geometry, max_batch);
}

void CudaOps::PagedAttention(const PagedAttentionParams& p, Stream& stream) {
  cuda::PagedAttention(p, scratch_, StreamOf(stream));
}

void CudaOps::Sample(const SampleParams& p, Stream& stream) {
  cuda::Sample(p, scratch_, StreamOf(stream));
}

void CudaOps::TokenLogprobs(const TokenLogprobsParams& p, Stream& stream) {
  cuda::TokenLogprobs(p, scratch_, StreamOf(stream));
}

void CudaOps::PrefillAttention(const PrefillAttentionParams& p, Stream& stream) {
  // A server has one staging area: its first prompt, the warm-up's, brings all plans.
  if (cudnn_ != nullptr && p.staging.num_pages != planned_pages_ && p.segments != nullptr) {
    planned_pages_ = p.staging.num_pages;
    cudnn_->Prepare(p.geometry, p.staging.num_pages, kPieceMaxQueries);
  }
  DispatchPrefillAttention(p, cudnn_.get(), StreamOf(stream));
}

#define SPIN_ENQUEUE(Family)                                      \
  void CudaOps::Family(const Family##Params& p, Stream& stream) { \
    cuda::Family(p, StreamOf(stream));                            \
  }

SPIN_ENQUEUE(Embedding)
SPIN_ENQUEUE(RmsNorm)
SPIN_ENQUEUE(Rope)
SPIN_ENQUEUE(SiluMul)
SPIN_ENQUEUE(GatherRows)
SPIN_ENQUEUE(StoreKv)
SPIN_ENQUEUE(Offload)
SPIN_ENQUEUE(QuestIndexPrefill)
SPIN_ENQUEUE(QuestIndexDecode)
SPIN_ENQUEUE(LandmarkIndexPrefill)
SPIN_ENQUEUE(LandmarkIndexDecode)
SPIN_ENQUEUE(KeyFactorPrefill)
SPIN_ENQUEUE(KeyFactorDecode)
SPIN_ENQUEUE(SeerIndexPrefill)
SPIN_ENQUEUE(SeerIndexDecode)
SPIN_ENQUEUE(ClusterIndexPrefill)
SPIN_ENQUEUE(ClusterIndexDecode)
SPIN_ENQUEUE(ClusterSelect)
SPIN_ENQUEUE(SelectTopK)
SPIN_ENQUEUE(ReplaySelection)
SPIN_ENQUEUE(Lookup)
SPIN_ENQUEUE(AppendKv)
SPIN_ENQUEUE(GatherPages)
SPIN_ENQUEUE(RebuildKeys)
SPIN_ENQUEUE(UpdateTables)
SPIN_ENQUEUE(MarkPrompt)

#undef SPIN_ENQUEUE

}  // namespace spin::cuda
