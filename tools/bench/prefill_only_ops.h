// A backend's Ops that can leave out the end of each prefilled layer, Index and Offload: what they add is then the
// difference of two measurements. Results are the same as long as nobody decodes what was prefilled without them.
#pragma once

#include <memory>
#include <utility>

#include "kernels/ops.h"

namespace spin::bench {

class PrefillOnlyOps final : public Ops {
 public:
  explicit PrefillOnlyOps(std::unique_ptr<Ops> ops) : ops_(std::move(ops)) {}

  // From now on; not while a prefill runs.
  void leave_out(bool value) { leave_out_ = value; }

  void Offload(const OffloadParams& p, Stream& stream) override {
    if (!leave_out_) ops_->Offload(p, stream);
  }
  void QuestIndexPrefill(const QuestIndexPrefillParams& p, Stream& stream) override {
    if (!leave_out_) ops_->QuestIndexPrefill(p, stream);
  }
  void LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p, Stream& stream) override {
    if (!leave_out_) ops_->LandmarkIndexPrefill(p, stream);
  }
  void SeerIndexPrefill(const SeerIndexPrefillParams& p, Stream& stream) override {
    if (!leave_out_) ops_->SeerIndexPrefill(p, stream);
  }
  void ClusterIndexPrefill(const ClusterIndexPrefillParams& p, Stream& stream) override {
    if (!leave_out_) ops_->ClusterIndexPrefill(p, stream);
  }

  int64_t PackedWeightBytes(int32_t n, int32_t k, DType dtype) const override {
    return ops_->PackedWeightBytes(n, k, dtype);
  }
  void PackWeight(void* dst, int32_t n, int32_t k, DType dtype, int32_t row_begin, int32_t rows,
                  const void* src, DType src_dtype) override {
    ops_->PackWeight(dst, n, k, dtype, row_begin, rows, src, src_dtype);
  }
  int32_t WeightRowAlignment() const override { return ops_->WeightRowAlignment(); }

  void Embedding(const EmbeddingParams& p, Stream& stream) override { ops_->Embedding(p, stream); }
  void RmsNorm(const RmsNormParams& p, Stream& stream) override { ops_->RmsNorm(p, stream); }
  void Gemm(const GemmParams& p, Stream& stream) override { ops_->Gemm(p, stream); }
  void Rope(const RopeParams& p, Stream& stream) override { ops_->Rope(p, stream); }
  void SiluMul(const SiluMulParams& p, Stream& stream) override { ops_->SiluMul(p, stream); }
  void GatherRows(const GatherRowsParams& p, Stream& stream) override {
    ops_->GatherRows(p, stream);
  }
  void StoreKv(const StoreKvParams& p, Stream& stream) override { ops_->StoreKv(p, stream); }
  void PrefillAttention(const PrefillAttentionParams& p, Stream& stream) override {
    ops_->PrefillAttention(p, stream);
  }
  void QuestIndexDecode(const QuestIndexDecodeParams& p, Stream& stream) override {
    ops_->QuestIndexDecode(p, stream);
  }
  void LandmarkIndexDecode(const LandmarkIndexDecodeParams& p, Stream& stream) override {
    ops_->LandmarkIndexDecode(p, stream);
  }
  void SeerIndexDecode(const SeerIndexDecodeParams& p, Stream& stream) override {
    ops_->SeerIndexDecode(p, stream);
  }
  void ClusterIndexDecode(const ClusterIndexDecodeParams& p, Stream& stream) override {
    ops_->ClusterIndexDecode(p, stream);
  }
  void ClusterSelect(const ClusterSelectParams& p, Stream& stream) override {
    ops_->ClusterSelect(p, stream);
  }
  void ClusterEstimate(const ClusterEstimateParams& p, Stream& stream) override {
    ops_->ClusterEstimate(p, stream);
  }
  int64_t ClusterPrefillScratchBytes(const KvGeometry& geometry,
                                     int32_t staging_pages) const override {
    return ops_->ClusterPrefillScratchBytes(geometry, staging_pages);
  }
  int64_t ClusterDecodeScratchBytes(const KvGeometry& geometry, int32_t max_batch) const override {
    return ops_->ClusterDecodeScratchBytes(geometry, max_batch);
  }
  void ScoreSummaries(const ScoreSummariesParams& p, Stream& stream) override {
    ops_->ScoreSummaries(p, stream);
  }
  void SeerScore(const SeerScoreParams& p, Stream& stream) override { ops_->SeerScore(p, stream); }
  void SelectTopK(const SelectTopKParams& p, Stream& stream) override {
    ops_->SelectTopK(p, stream);
  }
  void ReplaySelection(const ReplaySelectionParams& p, Stream& stream) override {
    ops_->ReplaySelection(p, stream);
  }
  void Lookup(const LookupParams& p, Stream& stream) override { ops_->Lookup(p, stream); }
  void AppendKv(const AppendKvParams& p, Stream& stream) override { ops_->AppendKv(p, stream); }
  void GatherPages(const GatherPagesParams& p, Stream& stream) override {
    ops_->GatherPages(p, stream);
  }
  void PagedAttention(const PagedAttentionParams& p, Stream& stream) override {
    ops_->PagedAttention(p, stream);
  }
  void Sample(const SampleParams& p, Stream& stream) override { ops_->Sample(p, stream); }
  void TokenLogprobs(const TokenLogprobsParams& p, Stream& stream) override {
    ops_->TokenLogprobs(p, stream);
  }
  void UpdateTables(const UpdateTablesParams& p, Stream& stream) override {
    ops_->UpdateTables(p, stream);
  }
  void MarkPrompt(const MarkPromptParams& p, Stream& stream) override {
    ops_->MarkPrompt(p, stream);
  }

 private:
  std::unique_ptr<Ops> ops_;
  bool leave_out_ = false;
};

}  // namespace spin::bench
