// The CPU twin of every kernel family: one free function each, defined in the file of its name. They run to their
// end on the calling thread and the pool's; CpuOps enqueues them on streams. params.h says what each computes.
#pragma once

#include "common/thread_pool.h"
#include "kernels/params.h"

namespace spin::cpu {

void Embedding(const EmbeddingParams& p, ThreadPool& pool);                // embedding.cc
void RmsNorm(const RmsNormParams& p, ThreadPool& pool);                    // rmsnorm.cc
void Gemm(const GemmParams& p, ThreadPool& pool);                          // gemm.cc
void Rope(const RopeParams& p, ThreadPool& pool);                          // rope.cc
void SiluMul(const SiluMulParams& p, ThreadPool& pool);                    // activation.cc
void GatherRows(const GatherRowsParams& p, ThreadPool& pool);              // embedding.cc
void StoreKv(const StoreKvParams& p, ThreadPool& pool);                    // store_kv.cc
void PrefillAttention(const PrefillAttentionParams& p, ThreadPool& pool);  // prefill_attention.cc
void PagedAttention(const PagedAttentionParams& p, ThreadPool& pool);      // paged_attention.cc

void Offload(const OffloadParams& p, ThreadPool& pool);                      // offload.cc
void QuestIndexPrefill(const QuestIndexPrefillParams& p, ThreadPool& pool);  // quest_index.cc
void QuestIndexDecode(const QuestIndexDecodeParams& p, ThreadPool& pool);    // quest_index.cc
void LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p,
                          ThreadPool& pool);  // landmark_index.cc
void LandmarkIndexDecode(const LandmarkIndexDecodeParams& p,
                         ThreadPool& pool);                                // landmark_index.cc
void KeyFactorPrefill(const KeyFactorPrefillParams& p, ThreadPool& pool);  // key_factor.cc
void KeyFactorDecode(const KeyFactorDecodeParams& p, ThreadPool& pool);    // key_factor.cc
void ScoreSummaries(const ScoreSummariesParams& p, ThreadPool& pool);      // score_summaries.cc
void SeerIndexPrefill(const SeerIndexPrefillParams& p, ThreadPool& pool);  // seer_index.cc
void SeerIndexDecode(const SeerIndexDecodeParams& p, ThreadPool& pool);    // seer_index.cc
void SeerScore(const SeerScoreParams& p, ThreadPool& pool);                // seer_score.cc
void ClusterIndexPrefill(const ClusterIndexPrefillParams& p, ThreadPool& pool);  // cluster_index.cc
void ClusterIndexDecode(const ClusterIndexDecodeParams& p, ThreadPool& pool);    // cluster_index.cc
void ClusterSelect(const ClusterSelectParams& p, ThreadPool& pool);      // cluster_select.cc
void ClusterEstimate(const ClusterEstimateParams& p, ThreadPool& pool);  // cluster_estimate.cc
void SelectTopK(const SelectTopKParams& p, ThreadPool& pool);            // select_topk.cc
void ReplaySelection(const ReplaySelectionParams& p, ThreadPool& pool);  // replay_selection.cc
void Lookup(const LookupParams& p, ThreadPool& pool);                    // lookup.cc
void AppendKv(const AppendKvParams& p, ThreadPool& pool);                // append_kv.cc
void GatherPages(const GatherPagesParams& p, ThreadPool& pool);          // gather_pages.cc
void RebuildKeys(const RebuildKeysParams& p, ThreadPool& pool);          // rebuild_keys.cc
void Sample(const SampleParams& p, ThreadPool& pool);                    // sample.cc
void TokenLogprobs(const TokenLogprobsParams& p, ThreadPool& pool);      // sample.cc
void UpdateTables(const UpdateTablesParams& p, ThreadPool& pool);        // update_tables.cc
void MarkPrompt(const MarkPromptParams& p, ThreadPool& pool);            // update_tables.cc

}  // namespace spin::cpu
