#include "engine/engine_metrics.h"

#include <string>
#include <vector>

#include "common/check.h"

namespace spin {
namespace {

// Bounds that dashboards made for vLLM expect; finer at the low end, where a fast server is.
std::vector<double> FirstTokenBounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}
std::vector<double> TokenLatencyBounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
          0.4,   0.5,    0.75,  1,    2.5,   5,    7.5,   10,  20,   40,  80};
}
std::vector<double> RequestTimeBounds() {
  return {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,   1.5, 2,   2.5, 5,    10,
          15,   20,   30,  40,  50,  60,  120, 240, 480, 960, 1920, 7680};
}
std::vector<double> TokenCountBounds() {
  std::vector<double> bounds;
  for (double decade = 1; decade <= 100000; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) bounds.push_back(step * decade);
  }
  return bounds;
}
std::vector<double> IterationTokenBounds() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
}

double Seconds(int64_t ns) {
  return static_cast<double>(ns) * 1e-9;
}

Counter& FinishedCounterOf(MetricsRegistry& registry, const char* reason) {
  return registry.AddCounter("spin:request_success_total", "Requests that ended, by reason",
                             {{"finished_reason", reason}});
}

Gauge& SlotsGauge(MetricsRegistry& registry, const char* use) {
  return registry.AddGauge("spin:tiered_slots",
                           "Page slots granted to Tiered sequences, over all layers and KV heads: "
                           "what one step may select, and the buffer beside it",
                           {{"use", use}});
}

Gauge& FreeExtentsGauge(MetricsRegistry& registry, const char* pool) {
  return registry.AddGauge("spin:free_extents",
                           "Extents (512 tokens of one layer) that nobody holds, by pool",
                           {{"pool", pool}});
}

// What is also known by vLLM's names.
void AddVllmNames(MetricsRegistry& registry) {
  for (const std::string name :
       {"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
        "prompt_tokens_total", "generation_tokens_total", "num_preemptions_total",
        "request_success_total", "time_to_first_token_seconds", "inter_token_latency_seconds",
        "e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds",
        "request_decode_time_seconds", "request_prompt_tokens", "request_generation_tokens",
        "iteration_tokens_total", "prefix_cache_queries_total", "prefix_cache_hits_total"}) {
    registry.AddAlias("vllm:" + name, "spin:" + name);
  }
  registry.AddAlias("vllm:gpu_cache_usage_perc", "spin:kv_cache_usage_perc");
  registry.AddAlias("vllm:gpu_prefix_cache_queries_total", "spin:prefix_cache_queries_total");
  registry.AddAlias("vllm:gpu_prefix_cache_hits_total", "spin:prefix_cache_hits_total");
  registry.AddAlias("vllm:time_per_output_token_seconds", "spin:inter_token_latency_seconds");
}

Gauge& BufferGauge(MetricsRegistry& registry) {
  return registry.AddGauge("spin:slot_buffer_extents",
                           "Slot extents that Tiered sequences hold above their least; they are "
                           "taken back for whoever needs them");
}

Counter& BufferCounter(MetricsRegistry& registry, const char* change) {
  return registry.AddCounter("spin:slot_buffer_changes_total",
                             "Slot extents handed out to Tiered sequences above their least, and "
                             "reclaimed from them for others",
                             {{"change", change}});
}

}  // namespace

EngineMetrics::PlacementGauges::PlacementGauges(MetricsRegistry& registry, const char* name,
                                                const char* help)
    : resident(registry.AddGauge(name, help, {{"placement", "resident"}})),
      tiered(registry.AddGauge(name, help, {{"placement", "tiered"}})),
      suspended(registry.AddGauge(name, help, {{"placement", "suspended"}})) {}

EngineMetrics::ByteCounters::ByteCounters(MetricsRegistry& registry)
    : index(registry.AddCounter(
          "spin:index_bytes_total",
          "Bytes of summaries that prefills and decode steps wrote, computed from lengths")),
      select(registry.AddCounter(
          "spin:select_bytes_total",
          "Bytes that decode steps read of summaries to score them, computed from lengths")),
      estimate(registry.AddCounter(
          "spin:estimate_bytes_total",
          "Bytes of records of the clusters that decode steps attended to by their means, "
          "computed from lengths")),
      attention(registry.AddCounter(
          "spin:attention_bytes_total",
          "Bytes of keys and values that decode steps attended to, computed from lengths, less "
          "what a threshold spared")),
      offload(registry.AddCounter(
          "spin:offload_bytes_total",
          "Bytes of keys and values of Tiered sequences that prefills and decode steps wrote to "
          "the host, computed from lengths")),
      spill(registry.AddCounter("spin:spill_bytes_total",
                                "Bytes that demotions copied to the host")) {}

EngineMetrics::EngineMetrics(MetricsRegistry* registry)
    : registry_(registry != nullptr ? *registry : unexported_),
      running_(registry_.AddGauge("spin:num_requests_running",
                                  "Sequences that decode or are prefilled")),
      waiting_(registry_.AddGauge("spin:num_requests_waiting", "Requests that wait in the queue")),
      kv_usage_(registry_.AddGauge("spin:kv_cache_usage_perc",
                                   "Share of the admissible KV capacity in use (0 to 1), of the "
                                   "tightest pool")),
      sequences_(registry_, "spin:sequences", "Sequences that hold memory, by placement"),
      sequence_tokens_(registry_, "spin:sequence_tokens",
                       "Tokens in the cache of prefilled sequences, by placement"),
      mandatory_slots_(SlotsGauge(registry_, "mandatory")),
      buffering_slots_(SlotsGauge(registry_, "buffering")),
      free_slots_(FreeExtentsGauge(registry_, "slots")),
      free_host_(FreeExtentsGauge(registry_, "host")),
      free_summaries_(FreeExtentsGauge(registry_, "summaries")),
      free_meta_(FreeExtentsGauge(registry_, "meta")),
      buffer_slots_(BufferGauge(registry_)),
      prompt_tokens_(registry_.AddCounter("spin:prompt_tokens_total", "Prompt tokens prefilled")),
      generation_tokens_(registry_.AddCounter("spin:generation_tokens_total", "Tokens generated")),
      preemptions_(registry_.AddCounter("spin:num_preemptions_total",
                                        "Times that a sequence gave its room to another")),
      demotions_(
          registry_.AddCounter("spin:demotions_total", "Sequences moved from Resident to Tiered")),
      bytes_(registry_),
      handed_out_(BufferCounter(registry_, "handed_out")),
      reclaimed_(BufferCounter(registry_, "reclaimed")),
      prefix_queries_(registry_.AddCounter("spin:prefix_cache_queries_total",
                                           "Prompt tokens looked up in the prefix cache")),
      prefix_hits_(registry_.AddCounter("spin:prefix_cache_hits_total",
                                        "Prompt tokens found in the prefix cache")),
      stopped_(FinishedCounterOf(registry_, "stop")),
      length_(FinishedCounterOf(registry_, "length")),
      aborted_(FinishedCounterOf(registry_, "abort")),
      failed_(FinishedCounterOf(registry_, "error")),
      time_to_first_token_(registry_.AddHistogram("spin:time_to_first_token_seconds",
                                                  "From arrival to the first token",
                                                  FirstTokenBounds())),
      inter_token_latency_(registry_.AddHistogram("spin:inter_token_latency_seconds",
                                                  "Between two tokens of a sequence",
                                                  TokenLatencyBounds())),
      e2e_latency_(registry_.AddHistogram("spin:e2e_request_latency_seconds",
                                          "From arrival to the end", RequestTimeBounds())),
      queue_time_(registry_.AddHistogram("spin:request_queue_time_seconds",
                                         "From arrival to admission", RequestTimeBounds())),
      prefill_time_(registry_.AddHistogram("spin:request_prefill_time_seconds",
                                           "From admission to the first token",
                                           RequestTimeBounds())),
      decode_time_(registry_.AddHistogram("spin:request_decode_time_seconds",
                                          "From the first token to the end", RequestTimeBounds())),
      request_prompt_tokens_(registry_.AddHistogram(
          "spin:request_prompt_tokens", "Prompt tokens of a request", TokenCountBounds())),
      request_generation_tokens_(registry_.AddHistogram(
          "spin:request_generation_tokens", "Tokens that a request generated", TokenCountBounds())),
      iteration_tokens_(registry_.AddHistogram("spin:iteration_tokens_total",
                                               "Tokens of a pass: prompts finished and tokens "
                                               "generated",
                                               IterationTokenBounds())) {
  AddVllmNames(registry_);
}

void EngineMetrics::OnAdmitted(int64_t queue_ns) {
  queue_time_.Observe(Seconds(queue_ns));
}

void EngineMetrics::OnFirstToken(int64_t since_arrival_ns, int64_t since_admission_ns) {
  time_to_first_token_.Observe(Seconds(since_arrival_ns));
  prefill_time_.Observe(Seconds(since_admission_ns));
}

void EngineMetrics::OnInterTokenLatency(int64_t ns) {
  inter_token_latency_.Observe(Seconds(ns));
}

void EngineMetrics::OnPass(int64_t prompt_tokens, int64_t generated_tokens) {
  prompt_tokens_.Add(static_cast<uint64_t>(prompt_tokens));
  generation_tokens_.Add(static_cast<uint64_t>(generated_tokens));
  const int64_t tokens = prompt_tokens + generated_tokens;
  if (tokens > 0) iteration_tokens_.Observe(static_cast<double>(tokens));
}

void EngineMetrics::OnTraffic(const StepReads& reads, const CacheWrites& writes,
                              int64_t spared_bytes) {
  bytes_.attention.Add(static_cast<uint64_t>(reads.attention_bytes - spared_bytes));
  bytes_.select.Add(static_cast<uint64_t>(reads.summary_bytes));
  bytes_.estimate.Add(static_cast<uint64_t>(reads.estimate_bytes));
  bytes_.index.Add(static_cast<uint64_t>(writes.index_bytes));
  bytes_.offload.Add(static_cast<uint64_t>(writes.offload_bytes));
}

Counter& EngineMetrics::FinishedCounter(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return stopped_;
    case FinishReason::kLength:
      return length_;
    case FinishReason::kAbort:
      return aborted_;
    case FinishReason::kNone:
    case FinishReason::kError:
      break;
  }
  return failed_;
}

void EngineMetrics::OnFinished(FinishReason reason, int64_t since_arrival_ns, int64_t decode_ns,
                               int64_t prompt_tokens, int64_t generated_tokens) {
  FinishedCounter(reason).Add();
  if (reason != FinishReason::kStop && reason != FinishReason::kLength) return;
  e2e_latency_.Observe(Seconds(since_arrival_ns));
  if (decode_ns >= 0) decode_time_.Observe(Seconds(decode_ns));
  request_prompt_tokens_.Observe(static_cast<double>(prompt_tokens));
  request_generation_tokens_.Observe(static_cast<double>(generated_tokens));
}

void EngineMetrics::Publish(const EngineCounts& counts, int64_t preemptions) {
  running_.Set(counts.running);
  waiting_.Set(counts.waiting);
  kv_usage_.Set(counts.kv.fraction);
  sequences_.resident.Set(counts.kv.resident_rows);
  sequences_.tiered.Set(counts.kv.tiered_rows);
  sequences_.suspended.Set(counts.kv.suspended_rows);
  sequence_tokens_.resident.Set(static_cast<double>(counts.kv.resident_tokens));
  sequence_tokens_.tiered.Set(static_cast<double>(counts.kv.tiered_tokens));
  sequence_tokens_.suspended.Set(static_cast<double>(counts.kv.suspended_tokens));
  mandatory_slots_.Set(static_cast<double>(counts.kv.tiered_slots.mandatory));
  buffering_slots_.Set(static_cast<double>(counts.kv.tiered_slots.buffering));
  free_slots_.Set(counts.kv.slot_extents_total - counts.kv.slot_extents);
  free_host_.Set(counts.kv.host_extents_total - counts.kv.host_extents);
  free_summaries_.Set(counts.kv.summary_extents_total - counts.kv.summary_extents);
  free_meta_.Set(counts.kv.meta_segments_total - counts.kv.meta_segments);
  buffer_slots_.Set(static_cast<double>(counts.kv.buffer_extents));
  preemptions_.Add(static_cast<uint64_t>(preemptions) - preemptions_.value());
  demotions_.Add(static_cast<uint64_t>(counts.kv.demotions) - demotions_.value());
  bytes_.spill.Add(static_cast<uint64_t>(counts.kv.spilled_bytes) - bytes_.spill.value());
  handed_out_.Add(static_cast<uint64_t>(counts.kv.handed_out_extents) - handed_out_.value());
  reclaimed_.Add(static_cast<uint64_t>(counts.kv.reclaimed_extents) - reclaimed_.value());
  const std::lock_guard lock(mutex_);
  counts_ = counts;
}

EngineCounts EngineMetrics::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void AddCacheConfigInfo(MetricsRegistry& registry, int64_t block_size, int64_t num_gpu_blocks) {
  registry
      .AddGauge("spin:cache_config_info", "Shape of the KV cache, in the labels",
                {{"block_size", std::to_string(block_size)},
                 {"num_gpu_blocks", std::to_string(num_gpu_blocks)}})
      .Set(1);
  registry.AddAlias("vllm:cache_config_info", "spin:cache_config_info");
}

}  // namespace spin
