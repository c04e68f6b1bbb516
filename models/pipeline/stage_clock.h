// StageClock: what each stage of a step takes on the device, by events between the stages.
//
// A run is timed from Start on: each Lap ends the time of one stage and begins the next one's. Collect reads the run
// once the stream has passed its last lap, so nobody ever waits for it; until then the clock is busy and the next run
// goes untimed. Laps add up to the time from Start to the last of them. Events cost the device a microsecond each and
// keep its kernels from overlapping their starts: whoever times every step measures a slower one. All events are made
// at once; nothing allocates afterwards.
//
// Engine thread, except times() (any thread).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/device.h"

namespace spin {

enum class Stage : int32_t {
  kIndex,      // summaries take the new key, or those of a prefilled layer
  kSelect,     // scores and critical partitions
  kLookup,     // Retrieve 1: hits, victims, lists
  kAppend,     // Offload: of the new token, or of a prefilled layer
  kGather,     // Retrieve 2: missing pages cross from the host
  kAttention,  // over the listed slots
  kRest,  // everything else: projections, MLP, logits, sampling; of a prefill: what is not the copy stream's
};
inline constexpr int32_t kNumStages = 7;

// Of the runs that were timed and read.
struct StageTimes {
  uint64_t runs = 0;  // decode steps, or prefill batches
  std::array<int64_t, kNumStages> ns = {};

  int64_t of(Stage stage) const { return ns[static_cast<std::size_t>(stage)]; }
};

class StageClock {
 public:
  // For runs of at most `max_laps` laps. `device` outlives the clock.
  StageClock(Device* device, int32_t max_laps);

  // A run has been started and not yet collected.
  bool busy() const { return num_points_ > 0; }

  // REQUIRES: not busy. All of a run is on one stream.
  void Start(Stream& stream);
  void Lap(Stage stage, Stream& stream);
  // Adds the run to times(). REQUIRES: busy, and the stream has passed the last lap.
  void Collect();
  // Forgets the run (its work was given up).
  void Discard() { num_points_ = 0; }

  StageTimes times() const;

 private:
  void Record(Stream& stream);

  Device& device_;
  std::vector<std::unique_ptr<Event>> points_;  // [max_laps + 1]
  std::vector<Stage> stages_;                   // [max_laps]: of the time before point i + 1
  int32_t num_points_ = 0;                      // recorded in this run
  std::atomic<uint64_t> runs_ = 0;
  std::array<std::atomic<int64_t>, kNumStages> ns_ = {};
};

}  // namespace spin
