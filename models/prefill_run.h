// A prefill batch in progress: one layer at a time over all its tokens, cut into token tiles.
//
// Only one layer's KV (in staging) and the hidden states are alive; Index and Offload of layer l
// run on the copy stream under layer l + 1, which works in the other staging buffer. The engine
// runs decode steps between tiles. The last tiles make the prompt log-probabilities that were asked
// for and sample each row's first token. The last layer makes keys and values of all tokens, and the
// rest only of those whose hidden state is read after it.
//
// Owned by the ModelExecutor; engine thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/decoder_layer.h"
#include "models/executor.h"
#include "models/model_context.h"
#include "models/pipeline/stage_clock.h"
#include "models/workspace.h"

namespace spin {

class PrefillRun {
 public:
  struct Limits {
    int32_t tile_tokens = 0;
    int32_t max_prefill_tokens = 0;
    int32_t max_rows = 0;
    int32_t max_batch = 0;
  };

  // `model` and `workspace` outlive the run.
  static absl::StatusOr<std::unique_ptr<PrefillRun>> Create(const ModelContext& model,
                                                            Workspace& workspace,
                                                            const Limits& limits);

  // Device memory that a run takes.
  static int64_t DeviceBytes(int64_t max_prefill_tokens, int64_t max_rows) {
    return 5 * 4 * max_prefill_tokens + (4 * 4 + int64_t{sizeof(PrefillSlice)}) * max_rows;
  }

  // REQUIRES: not active, the tokens fit. Uploads on `compute`. With a `clock` (or null) the copy stream's stages of
  // this batch are timed: it is busy from the first layer's end on, and has passed when the batch has.
  void Begin(std::vector<PrefillItem> items, StageClock* clock, Stream& compute);

  bool active() const { return !items_.empty(); }
  StageClock* clock() const { return clock_; }  // of the active batch, or null
  int64_t work_left() const { return active() ? work_left_ : 0; }

  // Enqueues tiles of `max_work` in all (see Executor), at least one. True: the batch is complete, its
  // first tokens will be in `sampled` (pinned, [max_rows], rows in order); it stays active until
  // Finish.
  bool Enqueue(int64_t max_work, Stream& compute, Stream& copy, SampledToken* sampled);

  // The batch is over (complete, or given up); `compute` waits for what still runs on the copy
  // stream.
  void Finish(Stream& compute);

  std::span<const PrefillItem> items() const { return items_; }
  // Pinned; entry i + 1 of an item's tokens is at its slice's token_begin + i. Valid for two
  // batches.
  const SampledToken* prompt_logprobs() const { return uploads_[parity_].logprobs; }
  std::span<const PrefillSlice> slices() const { return {uploads_[parity_].slices, items_.size()}; }

 private:
  // Host-written, device-read arrays of one batch. Two of them: the next batch is written while the
  // last one runs.
  struct Upload {
    int32_t* ids = nullptr;          // [max_prefill_tokens]
    int32_t* positions = nullptr;    // [max_prefill_tokens]
    int32_t* kv_begin = nullptr;     // [max_prefill_tokens]
    int32_t* kv_index = nullptr;     // [max_prefill_tokens]
    int32_t* targets = nullptr;      // [max_prefill_tokens] token that follows each one
    PrefillSlice* slices = nullptr;  // [max_rows]
    int32_t* rows = nullptr;         // [max_rows] rows that sample, in order
    int32_t* last_token =
        nullptr;  // [max_rows] packed index of the token that each of them continues
    int32_t* last_position = nullptr;  // [max_rows] its position
    int32_t* counts = nullptr;         // [max_rows] sampling rows in each group of max_batch
    SampledToken* logprobs = nullptr;  // [max_prefill_tokens] out
  };
  // Tokens [begin, end) of the batch.
  struct Run {
    int32_t begin = 0;
    int32_t end = 0;
    int32_t size() const { return std::max(end - begin, 0); }
  };
  // A run of prompt tokens whose log-probabilities are wanted.
  struct LogprobChunk {
    int32_t token_begin = 0;
    int32_t n = 0;
    int32_t num_top = 0;
  };

  PrefillRun(const ModelContext& model, Workspace& workspace, const Limits& limits)
      : model_(model), workspace_(workspace), limits_(limits) {}

  absl::Status Allocate();
  void PackItems(Upload& upload);
  void PackLogprobs();
  int64_t layer_tiles() const { return int64_t{model_.config.num_layers} * tiles_per_layer_; }
  int64_t total_tiles() const;
  Run TileTokens(int32_t tile) const;
  Run ReadAfterLayer(int32_t layer, Run tokens) const;
  int64_t TileWork(int64_t tile) const;
  void EnqueueTile(int64_t tile, Stream& compute, Stream& copy, SampledToken* sampled);
  void EnqueueLayerTile(int32_t layer, int32_t tile, Stream& compute);
  void EnqueueBehindKv(int32_t layer, Run run, Run read, Stream& compute);
  void FindSegments(Run tokens);
  void EnqueueLayerEnd(int32_t layer, Stream& compute, Stream& copy);
  void EnqueueLogprobs(const LogprobChunk& chunk, Stream& compute);
  void EnqueueSample(Stream& compute, SampledToken* sampled);

  const ModelContext& model_;
  Workspace& workspace_;
  const Limits limits_;
  std::unique_ptr<Event> layer_done_;
  std::unique_ptr<Event> offload_done_[2];  // of each staging buffer
  bool offload_pending_[2] = {false, false};

  Upload uploads_[2];  // pinned
  Upload device_;      // device copies
  std::vector<Buffer> buffers_;
  int parity_ = 0;

  std::vector<PrefillItem> items_;
  StageClock* clock_ = nullptr;
  std::vector<LogprobChunk> logprob_chunks_;
  std::vector<PrefillSegment> segments_;  // of the tile being enqueued
  int32_t num_tokens_ = 0;
  int32_t num_samples_ = 0;
  int32_t tiles_per_layer_ = 0;
  int64_t next_tile_ = 0;
  int64_t work_left_ = 0;
};

}  // namespace spin
