// The five stages: Index, Offload, Select, Retrieve, Attention, in that order. Index and Select
// belong to the algorithm, the rest is generic. Enqueues only; engine thread.
#pragma once

#include <cstdint>

#include "models/model_context.h"
#include "models/workspace.h"

namespace spin {

// Attention of one layer of a decode step: workspace.qkv -> workspace.attention. Retrieve counts
// into `counters` (pinned).
void EnqueueDecodeAttention(const ModelContext& model, int32_t layer, const DecodeRows& decode,
                            Workspace& workspace, RetrieveCounters* counters, Stream& stream);

// The end of one layer of a prefill batch: Index (with its scratch) and Offload of what is in `staging`.
void EnqueuePrefillOffload(const ModelContext& model, int32_t layer, const PrefillSlice* slices,
                           int32_t num_slices, const Staging& staging, void* index_scratch,
                           Stream& stream);

}  // namespace spin
