// The CUDA launcher of every kernel family: one free function each, defined in the file of its name. They enqueue on
// the stream and return; params.h says what each computes, kernels/README.md what all of them promise.
#pragma once

#include <driver_types.h>

#include "kernels/params.h"

namespace spin::cuda {

// Device memory that families share for what a kernel hands itself or the next (partial results, arrival counters).
// Owned by CudaOps; sized by the constants below, whatever the model. Families of the decode step use it, one stream at
// a time.
struct Scratch {
  float* partials =
      nullptr;  // [kPartialFloats]; sampling takes all of the kScratchBytes that begin here
  uint32_t* tickets =
      nullptr;  // [kTickets], zero between kernels: who takes one gives it back as zero
};
inline constexpr int64_t kPartialFloats = int64_t{8} << 20;
inline constexpr int64_t kScratchBytes = int64_t{64} << 20;  // 53 rows of 151,936 logits at once
inline constexpr int64_t kTickets = 65536;

// Products of at most 16 rows of bf16, where the shape is one that it serves. CudaOps goes through gemm.h, which times
// candidates behind PrecedeGemm: a kernel that does nothing, for the one that a decode step has there.
bool SkinnyGemmServes(const GemmParams& p);                 // skinny_gemm.cu
void SkinnyGemm(const GemmParams& p, cudaStream_t stream);  // skinny_gemm.cu
void PrecedeGemm(cudaStream_t stream);                      // skinny_gemm.cu

void Embedding(const EmbeddingParams& p, cudaStream_t stream);    // embedding.cu
void GatherRows(const GatherRowsParams& p, cudaStream_t stream);  // embedding.cu
void RmsNorm(const RmsNormParams& p, cudaStream_t stream);        // rmsnorm.cu
void Rope(const RopeParams& p, cudaStream_t stream);              // rope.cu
void SiluMul(const SiluMulParams& p, cudaStream_t stream);        // activation.cu

void StoreKv(const StoreKvParams& p, cudaStream_t stream);  // store_kv.cu
// Every shape, with no need of `segments`. CudaOps goes through prefill_dispatch.h.
void PrefillAttentionPortable(const PrefillAttentionParams& p,
                              cudaStream_t stream);         // prefill_attention.cu
void Offload(const OffloadParams& p, cudaStream_t stream);  // offload.cu

void QuestIndexPrefill(const QuestIndexPrefillParams& p, cudaStream_t stream);  // quest_index.cu
void QuestIndexDecode(const QuestIndexDecodeParams& p, cudaStream_t stream);    // quest_index.cu
void LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p,
                          cudaStream_t stream);  // landmark_index.cu
void LandmarkIndexDecode(const LandmarkIndexDecodeParams& p,
                         cudaStream_t stream);  // landmark_index.cu
// Of several files, key_stages.h; the order is key_factor.cc.
void KeyFactorPrefill(const KeyFactorPrefillParams& p, cudaStream_t stream);
void KeyFactorDecode(const KeyFactorDecodeParams& p, cudaStream_t stream);  // key_rows.cu
void CheckKeyGeometry(const KvTables& tables, const float* rope_table);     // key_factor.cc
void ScoreSummaries(const ScoreSummariesParams& p, const Scratch& scratch,
                    cudaStream_t stream);                                     // score_summaries.cu
void SeerIndexPrefill(const SeerIndexPrefillParams& p, cudaStream_t stream);  // seer_index.cu
void SeerIndexDecode(const SeerIndexDecodeParams& p, cudaStream_t stream);    // seer_index.cu
void SeerScore(const SeerScoreParams& p, const Scratch& scratch,
               cudaStream_t stream);  // seer_score.cu
void ClusterIndexPrefill(const ClusterIndexPrefillParams& p,
                         cudaStream_t stream);  // cluster_index.cu
void ClusterIndexDecode(const ClusterIndexDecodeParams& p,
                        cudaStream_t stream);  // cluster_index_decode.cu
int64_t ClusterPrefillScratchBytes(const KvGeometry& geometry, int32_t staging_pages);
int64_t ClusterDecodeScratchBytes(const KvGeometry& geometry, int32_t max_batch);
void ClusterSelect(const ClusterSelectParams& p, cudaStream_t stream);  // cluster_select.cu
void ClusterEstimate(const ClusterEstimateParams& p, const Scratch& scratch,
                     cudaStream_t stream);                                  // cluster_estimate.cu
void SelectTopK(const SelectTopKParams& p, cudaStream_t stream);            // select_topk.cu
void ReplaySelection(const ReplaySelectionParams& p, cudaStream_t stream);  // replay_selection.cu

void Lookup(const LookupParams& p, cudaStream_t stream);            // lookup.cu
void AppendKv(const AppendKvParams& p, cudaStream_t stream);        // append_kv.cu
void GatherPages(const GatherPagesParams& p, cudaStream_t stream);  // gather_pages.cu
void RebuildKeys(const RebuildKeysParams& p, cudaStream_t stream);  // rebuild_keys.cu
void PagedAttention(const PagedAttentionParams& p, const Scratch& scratch,
                    cudaStream_t stream);  // paged_attention.cu

void Sample(const SampleParams& p, const Scratch& scratch, cudaStream_t stream);  // sample.cu
void TokenLogprobs(const TokenLogprobsParams& p, const Scratch& scratch,
                   cudaStream_t stream);  // sample.cu

// `p.commands` is read by the host while it enqueues, too.
void UpdateTables(const UpdateTablesParams& p, cudaStream_t stream);  // update_tables.cu
void MarkPrompt(const MarkPromptParams& p, cudaStream_t stream);      // update_tables.cu

}  // namespace spin::cuda
