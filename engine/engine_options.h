// Limits and policies of the engine, from the `scheduler` and `server` sections of the configuration.
#pragma once

#include <cstdint>
#include <vector>

namespace spin {

enum class SchedulePolicy { kFcfs, kPriority };

struct EngineOptions {
  int32_t max_queue = 256;    // requests that wait; one more is refused with ResourceExhausted
  int32_t max_num_seqs = 64;  // sequences that run at once
  int32_t max_batched_tokens = 8192;  // prompt tokens packed into one prefill batch
  double max_decode_stall_ms = 50;    // prefill work between two decode steps
  SchedulePolicy policy = SchedulePolicy::kFcfs;
  // FCFS with aging: a waiting prompt's rank is its prompt tokens x this, minus the microseconds it has waited; short
  // prompts may pass long ones, and nothing waits for ever.
  double aging_us_per_token = 100;
  uint64_t seed = 0;                   // of requests that bring none
  std::vector<int32_t> eos_token_ids;  // the model's own end of sequence
  int32_t max_model_len = 0;
};

}  // namespace spin
