// Ops on the CPU: every method enqueues the free function of its family (families.h) with the
// shared thread pool.
#pragma once

#include "common/thread_pool.h"
#include "kernels/ops.h"

namespace spin::cpu {

class CpuOps : public Ops {
 public:
  explicit CpuOps(int threads) : pool_(threads) {}

  OpsLimits Limits(const KvGeometry&) const override { return {}; }
  void EndWarmUp() override {}

  int64_t PackedWeightBytes(int32_t n, int32_t k, DType dtype) const override;
  absl::Status PackWeight(void* dst, int32_t n, int32_t k, DType dtype, int32_t row_begin,
                          int32_t rows, const void* src, DType src_dtype) override;
  int32_t WeightRowAlignment() const override;

  void Embedding(const EmbeddingParams& p, Stream& stream) override;
  void RmsNorm(const RmsNormParams& p, Stream& stream) override;
  void Gemm(const GemmParams& p, Stream& stream) override;
  void Rope(const RopeParams& p, Stream& stream) override;
  void SiluMul(const SiluMulParams& p, Stream& stream) override;
  void GatherRows(const GatherRowsParams& p, Stream& stream) override;
  void StoreKv(const StoreKvParams& p, Stream& stream) override;
  void PrefillAttention(const PrefillAttentionParams& p, Stream& stream) override;
  void Offload(const OffloadParams& p, Stream& stream) override;
  void QuestIndexPrefill(const QuestIndexPrefillParams& p, Stream& stream) override;
  void QuestIndexDecode(const QuestIndexDecodeParams& p, Stream& stream) override;
  void LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p, Stream& stream) override;
  void LandmarkIndexDecode(const LandmarkIndexDecodeParams& p, Stream& stream) override;
  void KeyFactorPrefill(const KeyFactorPrefillParams& p, Stream& stream) override;
  void KeyFactorDecode(const KeyFactorDecodeParams& p, Stream& stream) override;
  void ScoreSummaries(const ScoreSummariesParams& p, Stream& stream) override;
  void SeerIndexPrefill(const SeerIndexPrefillParams& p, Stream& stream) override;
  void SeerIndexDecode(const SeerIndexDecodeParams& p, Stream& stream) override;
  void SeerScore(const SeerScoreParams& p, Stream& stream) override;
  void ClusterIndexPrefill(const ClusterIndexPrefillParams& p, Stream& stream) override;
  void ClusterIndexDecode(const ClusterIndexDecodeParams& p, Stream& stream) override;
  void ClusterSelect(const ClusterSelectParams& p, Stream& stream) override;
  void ClusterEstimate(const ClusterEstimateParams& p, Stream& stream) override;
  int64_t ClusterPrefillScratchBytes(const KvGeometry& geometry,
                                     int32_t staging_pages) const override;
  int64_t ClusterDecodeScratchBytes(const KvGeometry& geometry, int32_t max_batch) const override;
  void SelectTopK(const SelectTopKParams& p, Stream& stream) override;
  void ReplaySelection(const ReplaySelectionParams& p, Stream& stream) override;
  void Lookup(const LookupParams& p, Stream& stream) override;
  void AppendKv(const AppendKvParams& p, Stream& stream) override;
  void GatherPages(const GatherPagesParams& p, Stream& stream) override;
  void RebuildKeys(const RebuildKeysParams& p, Stream& stream) override;
  void PagedAttention(const PagedAttentionParams& p, Stream& stream) override;
  void Sample(const SampleParams& p, Stream& stream) override;
  void TokenLogprobs(const TokenLogprobsParams& p, Stream& stream) override;
  void UpdateTables(const UpdateTablesParams& p, Stream& stream) override;
  void MarkPrompt(const MarkPromptParams& p, Stream& stream) override;

 private:
  ThreadPool pool_;
};

}  // namespace spin::cpu
