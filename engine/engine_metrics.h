// What dashboards and routers see of the engine: spin: names, and the vllm: names that they already
// graph as aliases.
//
// Updates come from the engine thread; counts() and rendering from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "common/metrics.h"
#include "engine/request.h"
#include "memory/kv_cache_manager.h"

namespace spin {

// State after a pass.
struct EngineCounts {
  int32_t running = 0;    // sequences that decode or are prefilled
  int32_t waiting = 0;    // requests in the queue
  int32_t preempted = 0;  // sequences that wait to resume
  KvUsage kv;
};

class EngineMetrics {
 public:
  // `registry` outlives this; null: the figures are kept and exported nowhere.
  explicit EngineMetrics(MetricsRegistry* registry);

  // Times are in nanoseconds since the event that the name says.
  void OnAdmitted(int64_t queue_ns);
  void OnFirstToken(int64_t since_arrival_ns, int64_t since_admission_ns);
  void OnInterTokenLatency(int64_t ns);
  void OnPass(int64_t prompt_tokens, int64_t generated_tokens);
  // Of a pass: its decode step read so much, but for keys and values that a threshold spared.
  void OnTraffic(const StepReads& reads, const CacheWrites& writes, int64_t spared_bytes);
  // `decode_ns` since the first token; -1 when there was none.
  void OnFinished(FinishReason reason, int64_t since_arrival_ns, int64_t decode_ns,
                  int64_t prompt_tokens, int64_t generated_tokens);
  // Once a pass. `preemptions` since start.
  void Publish(const EngineCounts& counts, int64_t preemptions);

  EngineCounts counts() const;

 private:
  // One family, a series a placement.
  struct PlacementGauges {
    PlacementGauges(MetricsRegistry& registry, const char* name, const char* help);
    Gauge &resident, &tiered, &suspended;
  };

  // Families by what is done with the bytes.
  struct ByteCounters {
    explicit ByteCounters(MetricsRegistry& registry);
    Counter &index, &select, &estimate, &attention, &offload, &spill;
  };

  Counter& FinishedCounter(FinishReason reason);

  MetricsRegistry unexported_;
  MetricsRegistry& registry_;
  Gauge &running_, &waiting_, &kv_usage_;
  PlacementGauges sequences_, sequence_tokens_;
  Gauge &mandatory_slots_, &buffering_slots_;
  Gauge &free_slots_, &free_host_, &free_summaries_, &free_meta_;
  Gauge& buffer_slots_;
  Counter &prompt_tokens_, &generation_tokens_, &preemptions_, &demotions_;
  ByteCounters bytes_;
  Counter &handed_out_, &reclaimed_;
  // Routers refuse a server without these two; they stay 0 while every prompt is prefilled whole.
  Counter &prefix_queries_, &prefix_hits_;
  Counter &stopped_, &length_, &aborted_, &failed_;
  Histogram &time_to_first_token_, &inter_token_latency_, &e2e_latency_;
  Histogram &queue_time_, &prefill_time_, &decode_time_;
  Histogram &request_prompt_tokens_, &request_generation_tokens_, &iteration_tokens_;

  mutable std::mutex mutex_;  // guards counts_
  EngineCounts counts_;
};

// The gauge that tells routers the cache's shape: always 1, its labels say `block_size` tokens a
// block and how many blocks HBM holds. Exported once, at start, by whoever knows the memory plan.
void AddCacheConfigInfo(MetricsRegistry& registry, int64_t block_size, int64_t num_gpu_blocks);

}  // namespace spin
