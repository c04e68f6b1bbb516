// What one pass runs, as the scheduler decided it: plain data, filled by Plan, read by Commit and
// Launch.
#pragma once

#include <cstdint>
#include <vector>

#include "common/ids.h"
#include "engine/sequence.h"

namespace spin {

// One prompt of a prefill batch and the sequences that start from it: all n of a new request, one
// after a preemption.
struct PrefillUnit {
  LiveRequest* request = nullptr;
  std::vector<Sequence*> sequences;
};

struct ScheduledBatch {
  bool starts_prefill = false;     // Scheduler::prefill() is new: to be given to the executor
  std::vector<Sequence*> decode;   // best first; distinct
  std::vector<RowId> decode_rows;  // their rows
  std::vector<Sequence*>
      exhausted;  // finish now with kLength: memory has no room for another token
  std::vector<LiveRequest*> refused;  // cannot run even alone: fail them

  void Clear() {
    starts_prefill = false;
    decode.clear();
    decode_rows.clear();
    exhausted.clear();
    refused.clear();
  }
};

}  // namespace spin
