// Ops: mathematics and table work, one method a kernel family.
//
// Every method enqueues on the stream and returns; nothing allocates, nothing fails: preconditions are SPIN_CHECKed
// on the host. Memory that parameters point to must stay valid until the stream has passed. kernels/README.md says
// how to add a family. params.h documents each computation.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/ops_limits.h"
#include "kernels/params.h"

namespace spin {

class Ops {
 public:
  virtual ~Ops() = default;

  // What the families serve with a cache of this shape. Whoever plans a server compares: what goes beyond it fails a
  // SPIN_CHECK later.
  virtual OpsLimits Limits(const KvGeometry& geometry) const = 0;
  // The end of start-up. Before it a backend may take its time over the shape of a product that it has not met, and
  // synchronise, to choose how to compute it; from now on it decides at once, by what it has learnt.
  virtual void EndWarmUp() = 0;

  // ---- Weights (start-up; on the calling thread, not enqueued). A packed weight is filled by rows, several tensors
  // may share one (fused QKV, gate and up). n and k as in Weight.
  virtual int64_t PackedWeightBytes(int32_t n, int32_t k, DType dtype) const = 0;
  // Writes rows [row_begin, row_begin + rows) of the packed weight `dst` (n x k of dtype). `src` is row-major host
  // memory [rows][k] of `src_dtype`; conversion rounds to nearest even. Calls for disjoint rows may run in parallel
  // when row_begin and rows are multiples of WeightRowAlignment(). ResourceExhausted where the way to the device cannot
  // be made.
  virtual absl::Status PackWeight(void* dst, int32_t n, int32_t k, DType dtype, int32_t row_begin,
                                  int32_t rows, const void* src, DType src_dtype) = 0;
  virtual int32_t WeightRowAlignment() const = 0;

  virtual void Embedding(const EmbeddingParams& p, Stream& stream) = 0;
  virtual void RmsNorm(const RmsNormParams& p, Stream& stream) = 0;
  virtual void Gemm(const GemmParams& p, Stream& stream) = 0;
  virtual void Rope(const RopeParams& p, Stream& stream) = 0;
  virtual void SiluMul(const SiluMulParams& p, Stream& stream) = 0;
  virtual void GatherRows(const GatherRowsParams& p, Stream& stream) = 0;

  virtual void StoreKv(const StoreKvParams& p, Stream& stream) = 0;
  virtual void PrefillAttention(const PrefillAttentionParams& p, Stream& stream) = 0;
  virtual void Offload(const OffloadParams& p, Stream& stream) = 0;

  virtual void QuestIndexPrefill(const QuestIndexPrefillParams& p, Stream& stream) = 0;
  virtual void QuestIndexDecode(const QuestIndexDecodeParams& p, Stream& stream) = 0;
  virtual void LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p, Stream& stream) = 0;
  virtual void LandmarkIndexDecode(const LandmarkIndexDecodeParams& p, Stream& stream) = 0;
  virtual void KeyFactorPrefill(const KeyFactorPrefillParams& p, Stream& stream) = 0;
  virtual void KeyFactorDecode(const KeyFactorDecodeParams& p, Stream& stream) = 0;
  virtual void ScoreSummaries(const ScoreSummariesParams& p, Stream& stream) = 0;
  virtual void SeerIndexPrefill(const SeerIndexPrefillParams& p, Stream& stream) = 0;
  virtual void SeerIndexDecode(const SeerIndexDecodeParams& p, Stream& stream) = 0;
  virtual void SeerScore(const SeerScoreParams& p, Stream& stream) = 0;
  virtual void ClusterIndexPrefill(const ClusterIndexPrefillParams& p, Stream& stream) = 0;
  virtual void ClusterIndexDecode(const ClusterIndexDecodeParams& p, Stream& stream) = 0;
  virtual void ClusterSelect(const ClusterSelectParams& p, Stream& stream) = 0;
  virtual void ClusterEstimate(const ClusterEstimateParams& p, Stream& stream) = 0;
  // Scratch of ClusterIndexPrefill for staging of so many pages a head; of ClusterIndexDecode for a batch of max_batch.
  virtual int64_t ClusterPrefillScratchBytes(const KvGeometry& geometry,
                                             int32_t staging_pages) const = 0;
  virtual int64_t ClusterDecodeScratchBytes(const KvGeometry& geometry,
                                            int32_t max_batch) const = 0;
  virtual void SelectTopK(const SelectTopKParams& p, Stream& stream) = 0;
  // For measurements alone: tools/trace.
  virtual void ReplaySelection(const ReplaySelectionParams& p, Stream& stream) = 0;

  virtual void Lookup(const LookupParams& p, Stream& stream) = 0;
  virtual void AppendKv(const AppendKvParams& p, Stream& stream) = 0;
  virtual void GatherPages(const GatherPagesParams& p, Stream& stream) = 0;
  virtual void RebuildKeys(const RebuildKeysParams& p, Stream& stream) = 0;
  virtual void PagedAttention(const PagedAttentionParams& p, Stream& stream) = 0;

  virtual void Sample(const SampleParams& p, Stream& stream) = 0;
  virtual void TokenLogprobs(const TokenLogprobsParams& p, Stream& stream) = 0;

  virtual void UpdateTables(const UpdateTablesParams& p, Stream& stream) = 0;
  virtual void MarkPrompt(const MarkPromptParams& p, Stream& stream) = 0;
};

}  // namespace spin
