// What one pass in flight holds on the host: pinned bytes that device work reads or writes, and its
// events. The executor has as many as there may be passes in flight, and uses them in turn.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/math.h"
#include "common/status.h"
#include "kernels/device.h"
#include "models/executor.h"

namespace spin {

// Pinned memory handed out front to back; empty again when its pass has been collected.
class PinnedArena {
 public:
  PinnedArena() = default;
  explicit PinnedArena(Buffer buffer) : buffer_(std::move(buffer)) {}

  // Room for `count` of T, or null: full.
  template <typename T>
  T* Take(int64_t count) {
    const int64_t begin = RoundUp<int64_t>(used_, 64);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (begin + bytes > buffer_.bytes()) return nullptr;
    used_ = begin + bytes;
    return reinterpret_cast<T*>(buffer_.as<std::byte>() + begin);
  }
  void Reset() { used_ = 0; }

 private:
  Buffer buffer_;
  int64_t used_ = 0;
};

struct Pass {
  PinnedArena arena;
  Buffer outputs;                   // SampledToken[max_rows + max_batch]: prefilled, then decoded
  Buffer counters;                  // RetrieveCounters[max_rows] as they stood at the pass's end
  std::vector<RowId> prefill_rows;  // rows that `outputs` begins with
  std::vector<RowId> decode_rows;
  std::vector<PassResult::Sampled> sampled;  // what Collect hands out
  std::vector<std::vector<SampledToken>> prompt_logprobs;
  // Where the log-probabilities of a finished batch are: (first entry, count) an item, pinned.
  std::vector<std::pair<const SampledToken*, int32_t>> logprob_ranges;
  std::unique_ptr<Event> begin, prefill_begin, prefill_end, decode_end;
  bool begins_prefill = false;    // BeginPrefill was called
  bool has_prefill = false;       // tiles were enqueued
  bool times_step = false;        // the clock of decode steps has run in it
  bool ends_timed_batch = false;  // the clock of prefill batches has run until it

  static absl::Status Allocate(Device& device, int64_t arena_bytes, int32_t max_rows,
                               int32_t max_batch, Pass& pass);
  void Reset();
  // Fills `sampled` and `prompt_logprobs` from the pinned outputs. REQUIRES: the device has passed
  // the pass's end.
  void Harvest(int32_t max_rows);
};

}  // namespace spin
