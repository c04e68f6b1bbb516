// The five stages: Index, Offload, Select, Retrieve, Attention, in that order. Index and Select
// belong to the algorithm, the rest is generic. Enqueues only; engine thread.
//
// A layer of a decode step has two schedules (models/README.md, section 4): in order on one stream,
// or with the missing pages on their way beside the attention to what is ready.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "models/model_context.h"
#include "models/workspace.h"

namespace spin {

// What the second schedule fetches pages on. The device outlives it.
struct GatherStream {
  explicit GatherStream(Device& device)
      : stream(device.CreateStream("gather", StreamPriority::kHigh)),
        lists_are_there(device.CreateEvent()),
        pages_are_there(device.CreateEvent()) {}

  std::unique_ptr<Stream> stream;
  std::unique_ptr<Event> lists_are_there, pages_are_there;
};

// Attention of one layer of a decode step: workspace.qkv -> workspace.attention. Retrieve counts
// into `counters` (device memory). With `gather` it overlaps, and joins `stream` again before it
// returns; without (null) all goes in order.
void EnqueueDecodeAttention(const ModelContext& model, int32_t layer, const DecodeRows& decode,
                            Workspace& workspace, RetrieveCounters* counters, Stream& stream,
                            GatherStream* gather);

// The end of one layer of a prefill batch: Index (with its scratch) and Offload of what is in `staging`.
void EnqueuePrefillOffload(const ModelContext& model, int32_t layer, const PrefillSlice* slices,
                           int32_t num_slices, const Staging& staging, void* index_scratch,
                           Stream& stream);

}  // namespace spin
