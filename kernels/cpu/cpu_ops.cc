#include "kernels/cpu/cpu_ops.h"

#include "kernels/cpu/cluster_scratch.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/pack_weight.h"
#include "kernels/cpu/weight_layout.h"

namespace spin::cpu {
namespace {

template <typename Params>
struct Call {
  Params params;
  ThreadPool* pool;
};

template <auto Family, typename Params>
void Enqueue(const Params& params, ThreadPool& pool, Stream& stream) {
  static_cast<CpuStream&>(stream).Enqueue<Call<Params>>(
      [](const Call<Params>& call) { Family(call.params, *call.pool); },
      Call<Params>{params, &pool});
}

}  // namespace

int64_t CpuOps::PackedWeightBytes(int32_t n, int32_t k, DType dtype) const {
  return cpu::PackedWeightBytes(n, k, dtype);
}

absl::Status CpuOps::PackWeight(void* dst, int32_t n, int32_t k, DType dtype, int32_t row_begin,
                                int32_t rows, const void* src, DType src_dtype) {
  cpu::PackWeight(dst, n, k, dtype, row_begin, rows, src, src_dtype);
  return absl::OkStatus();
}

int32_t CpuOps::WeightRowAlignment() const {
  return kPanelRows;
}

void CpuOps::Embedding(const EmbeddingParams& p, Stream& stream) {
  Enqueue<cpu::Embedding>(p, pool_, stream);
}
void CpuOps::RmsNorm(const RmsNormParams& p, Stream& stream) {
  Enqueue<cpu::RmsNorm>(p, pool_, stream);
}
void CpuOps::Gemm(const GemmParams& p, Stream& stream) {
  Enqueue<cpu::Gemm>(p, pool_, stream);
}
void CpuOps::Rope(const RopeParams& p, Stream& stream) {
  Enqueue<cpu::Rope>(p, pool_, stream);
}
void CpuOps::SiluMul(const SiluMulParams& p, Stream& stream) {
  Enqueue<cpu::SiluMul>(p, pool_, stream);
}
void CpuOps::GatherRows(const GatherRowsParams& p, Stream& stream) {
  Enqueue<cpu::GatherRows>(p, pool_, stream);
}
void CpuOps::StoreKv(const StoreKvParams& p, Stream& stream) {
  Enqueue<cpu::StoreKv>(p, pool_, stream);
}
void CpuOps::PrefillAttention(const PrefillAttentionParams& p, Stream& stream) {
  Enqueue<cpu::PrefillAttention>(p, pool_, stream);
}
void CpuOps::Offload(const OffloadParams& p, Stream& stream) {
  Enqueue<cpu::Offload>(p, pool_, stream);
}
void CpuOps::QuestIndexPrefill(const QuestIndexPrefillParams& p, Stream& stream) {
  Enqueue<cpu::QuestIndexPrefill>(p, pool_, stream);
}
void CpuOps::QuestIndexDecode(const QuestIndexDecodeParams& p, Stream& stream) {
  Enqueue<cpu::QuestIndexDecode>(p, pool_, stream);
}
void CpuOps::LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p, Stream& stream) {
  Enqueue<cpu::LandmarkIndexPrefill>(p, pool_, stream);
}
void CpuOps::LandmarkIndexDecode(const LandmarkIndexDecodeParams& p, Stream& stream) {
  Enqueue<cpu::LandmarkIndexDecode>(p, pool_, stream);
}
void CpuOps::KeyFactorPrefill(const KeyFactorPrefillParams& p, Stream& stream) {
  Enqueue<cpu::KeyFactorPrefill>(p, pool_, stream);
}
void CpuOps::KeyFactorDecode(const KeyFactorDecodeParams& p, Stream& stream) {
  Enqueue<cpu::KeyFactorDecode>(p, pool_, stream);
}
void CpuOps::ScoreSummaries(const ScoreSummariesParams& p, Stream& stream) {
  Enqueue<cpu::ScoreSummaries>(p, pool_, stream);
}
void CpuOps::SeerIndexPrefill(const SeerIndexPrefillParams& p, Stream& stream) {
  Enqueue<cpu::SeerIndexPrefill>(p, pool_, stream);
}
void CpuOps::SeerIndexDecode(const SeerIndexDecodeParams& p, Stream& stream) {
  Enqueue<cpu::SeerIndexDecode>(p, pool_, stream);
}
void CpuOps::SeerScore(const SeerScoreParams& p, Stream& stream) {
  Enqueue<cpu::SeerScore>(p, pool_, stream);
}
void CpuOps::ClusterIndexPrefill(const ClusterIndexPrefillParams& p, Stream& stream) {
  Enqueue<cpu::ClusterIndexPrefill>(p, pool_, stream);
}
void CpuOps::ClusterIndexDecode(const ClusterIndexDecodeParams& p, Stream& stream) {
  Enqueue<cpu::ClusterIndexDecode>(p, pool_, stream);
}
void CpuOps::ClusterSelect(const ClusterSelectParams& p, Stream& stream) {
  Enqueue<cpu::ClusterSelect>(p, pool_, stream);
}
void CpuOps::ClusterEstimate(const ClusterEstimateParams& p, Stream& stream) {
  Enqueue<cpu::ClusterEstimate>(p, pool_, stream);
}
int64_t CpuOps::ClusterPrefillScratchBytes(const KvGeometry& geometry,
                                           int32_t staging_pages) const {
  return pool_.num_threads() * ClusterPrefillThreadBytes(geometry, staging_pages);
}
int64_t CpuOps::ClusterDecodeScratchBytes(const KvGeometry& geometry, int32_t) const {
  return pool_.num_threads() * ClusterDecodeThreadBytes(geometry);
}
void CpuOps::SelectTopK(const SelectTopKParams& p, Stream& stream) {
  Enqueue<cpu::SelectTopK>(p, pool_, stream);
}
void CpuOps::ReplaySelection(const ReplaySelectionParams& p, Stream& stream) {
  Enqueue<cpu::ReplaySelection>(p, pool_, stream);
}
void CpuOps::Lookup(const LookupParams& p, Stream& stream) {
  Enqueue<cpu::Lookup>(p, pool_, stream);
}
void CpuOps::AppendKv(const AppendKvParams& p, Stream& stream) {
  Enqueue<cpu::AppendKv>(p, pool_, stream);
}
void CpuOps::GatherPages(const GatherPagesParams& p, Stream& stream) {
  Enqueue<cpu::GatherPages>(p, pool_, stream);
}
void CpuOps::RebuildKeys(const RebuildKeysParams& p, Stream& stream) {
  Enqueue<cpu::RebuildKeys>(p, pool_, stream);
}
void CpuOps::PagedAttention(const PagedAttentionParams& p, Stream& stream) {
  Enqueue<cpu::PagedAttention>(p, pool_, stream);
}
void CpuOps::Sample(const SampleParams& p, Stream& stream) {
  Enqueue<cpu::Sample>(p, pool_, stream);
}
void CpuOps::TokenLogprobs(const TokenLogprobsParams& p, Stream& stream) {
  Enqueue<cpu::TokenLogprobs>(p, pool_, stream);
}
void CpuOps::UpdateTables(const UpdateTablesParams& p, Stream& stream) {
  Enqueue<cpu::UpdateTables>(p, pool_, stream);
}
void CpuOps::MarkPrompt(const MarkPromptParams& p, Stream& stream) {
  Enqueue<cpu::MarkPrompt>(p, pool_, stream);
}

}  // namespace spin::cpu
