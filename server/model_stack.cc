#include "server/model_stack.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <span>
#include <utility>

#include "common/logging.h"
#include "common/units.h"
#include "engine/engine_metrics.h"
#include "engine/sampling_params.h"
#include "models/checkpoint.h"
#include "models/sparse/sparse_registry.h"
#include "models/weights.h"
#include "server/backend_limits.h"

namespace spin {
namespace {

// Sequences may hold memory without running (suspended): rows of the tables beyond those of a step.
constexpr int32_t kRowsPerSequence = 2;

// On a GPU, what the budget keeps free of weights, workspace and cache: libraries, kernels, captured steps.
constexpr int64_t kDeviceReserve = 3 * kGiB / 2;

// "auto" budgets. Where the cache shares the host's memory, small shares, so that a laptop stays usable.
int64_t AutoHbmBudget(const DeviceInfo& info) {
  if (info.shares_host_memory) return std::min(2 * kGiB, info.device_bytes / 8);
  return info.device_bytes / 100 * 98;
}
int64_t AutoHostPool(const DeviceInfo& info) {
  return info.shares_host_memory ? std::min(4 * kGiB, info.host_bytes / 4) : info.host_bytes / 2;
}

// What the KV cache may take of the device.
absl::StatusOr<int64_t> CacheBudget(const ServerConfig& config, const DeviceInfo& info,
                                    const ModelPlan& plan) {
  const int64_t budget = config.hbm_budget_bytes.value_or(AutoHbmBudget(info));
  if (info.shares_host_memory) return budget;
  if (budget > info.device_bytes) {
    return ResourceExhausted("memory.hbm_budget: %s, but only %s are free on the GPU",
                             FormatBytes(budget), FormatBytes(info.device_bytes));
  }
  const int64_t rest = budget - plan.weight_bytes - plan.executor_bytes - kDeviceReserve;
  if (rest > 0) return rest;
  return ResourceExhausted(
      "memory.hbm_budget: %s; weights take %s, the workspace %s (lower model.max_model_len, "
      "scheduler.max_batched_tokens, scheduler.max_num_seqs or scheduler.prefill_tile_tokens), and "
      "%s stay in reserve",
      FormatBytes(budget), FormatBytes(plan.weight_bytes), FormatBytes(plan.executor_bytes),
      FormatBytes(kDeviceReserve));
}

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Logs a percentage, at most once a second and when done.
class ProgressLog {
 public:
  explicit ProgressLog(const char* what) : what_(what), last_(std::chrono::steady_clock::now()) {}
  void Report(int64_t done, int64_t total) {
    if (SecondsSince(last_) < 1 || done >= total) return;
    last_ = std::chrono::steady_clock::now();
    SPIN_LOG(INFO, "%s: %d %%", what_, 100 * done / total);
  }

 private:
  const char* what_;
  std::chrono::steady_clock::time_point last_;
};

// Once a second from the device.
void LogPinning(int64_t ready_bytes, int64_t bytes) {
  if (ready_bytes < bytes) {
    SPIN_LOG(INFO, "pinning host pool: %s of %s", FormatBytes(ready_bytes), FormatBytes(bytes));
  } else {
    SPIN_LOG(INFO, "pinning host pool: registering %s", FormatBytes(bytes));
  }
}

// What was not measured is not exported.
void AddSpeedMetrics(MetricsRegistry& metrics, const TierSpeed& speed) {
  const auto add = [&](const char* path, double rate) {
    if (rate == 0) return;
    metrics
        .AddGauge("spin:selftest_copy_bytes_per_second",
                  "Copies measured at start; within HBM bytes read plus bytes written.",
                  {{"path", path}})
        .Set(rate);
  };
  add("hbm", speed.hbm_copy);
  add("host_to_device", speed.host_to_device);
  add("device_to_host", speed.device_to_host);
  for (const TierSpeed::Gather& gather : speed.gathers) {
    metrics
        .AddGauge("spin:selftest_gather_bytes_per_second",
                  "Fetching scattered host pages, measured at start, by size of the page.",
                  {{"page_bytes", std::to_string(gather.page_bytes)}})
        .Set(gather.rate);
  }
}

// Seconds of the stages that `names` names, and how many runs they were measured in.
void AddStageMetrics(MetricsRegistry& metrics, const char* phase,
                     std::span<const std::pair<Stage, const char*>> names,
                     const std::function<StageTimes()>& times) {
  for (const auto& [stage, name] : names) {
    metrics.AddCallback(
        "spin:stage_seconds_total",
        "Device time of each stage, in the decode steps and prefill batches that were timed.", true,
        [=, stage = stage] { return static_cast<double>(times().of(stage)) * 1e-9; },
        {{"phase", phase}, {"stage", name}});
  }
  metrics.AddCallback("spin:stage_samples_total",
                      "Decode steps and prefill batches whose stages were timed.", true,
                      [=] { return static_cast<double>(times().runs); }, {{"phase", phase}});
}

absl::Status CheckLengths(const ServerConfig& config, const ModelConfig& model) {
  if (config.max_model_len.has_value() && *config.max_model_len > model.max_position) {
    return InvalidArgument("model.max_model_len: %d is more than the model's context of %d tokens",
                           *config.max_model_len, model.max_position);
  }
  return absl::OkStatus();
}

// Defaults that every request would be refused with are an error of the folder.
absl::Status CheckDefaults(const ModelFolder& folder) {
  const GenerationConfig& own = folder.generation;
  SamplingParams sampling;
  sampling.temperature = own.temperature.value_or(sampling.temperature);
  sampling.top_p = own.top_p.value_or(sampling.top_p);
  sampling.top_k = own.top_k.value_or(sampling.top_k);
  sampling.min_p = own.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = own.repetition_penalty.value_or(sampling.repetition_penalty);
  const absl::Status status = sampling.Validate(folder.config.vocab_size);
  if (status.ok()) return status;
  return InvalidArgument("%s/generation_config.json: %s (model.generation_config: none ignores it)",
                         folder.path, MessageOf(status));
}

absl::Status CheckServed(const ModelPlan& plan, const KvGeometry& geometry) {
  return CheckBackendLimits(
      plan.backend.ops->Limits(geometry),
      {.geometry = geometry,
       .vocab_size = plan.folder.config.vocab_size,
       .max_num_seqs = plan.executor.max_batch,
       .prefill_tile_tokens = plan.executor.tile_tokens,
       .retrieved_clusters = plan.algorithm->MaxRetrieved(geometry.max_pages())});
}

// The most pages that a request's own budget may have; 0: as many as the algorithm selects by itself.
absl::StatusOr<int32_t> MaxBudgetPages(const SparseOptions& sparse, const KvGeometry& geometry,
                                       const SparseAlgorithm& algorithm) {
  if (!sparse.max_budget_tokens.has_value()) return 0;
  int32_t own = 0;
  for (int32_t layer = 0; layer < geometry.num_layers; ++layer) {
    const LayerDemand demand = algorithm.Demand(layer);
    if (!demand.whole_context) own = std::max(own, demand.Mandatory(geometry.max_pages()));
  }
  const int32_t pages = *sparse.max_budget_tokens / geometry.page_tokens;
  if (pages >= own) return std::min(pages, geometry.max_pages());
  return InvalidArgument(
      "sparse.max_budget_tokens: %d is less than the %d that a step selects by itself",
      *sparse.max_budget_tokens, own * geometry.page_tokens);
}

}  // namespace

std::string ModelPlan::ToText() const {
  const ModelConfig& model = folder.config;
  return absl::StrFormat(
      "model    %s: %s, %.1f M parameters, %d layers, %d query and %d KV heads of %d, context %d\n"
      "device   %s; %s of weights, %s of workspace\n%s",
      folder.path, model.architecture, static_cast<double>(model.num_parameters()) / 1e6,
      model.num_layers, model.num_q_heads, model.num_kv_heads, model.head_dim, max_model_len,
      backend.device->info().name, FormatBytes(weight_bytes), FormatBytes(executor_bytes),
      cache.plan.ToText());
}

absl::StatusOr<ModelPlan> PlanModel(const ServerConfig& config) {
  if (config.model_path.empty()) {
    return InvalidArgument(
        "no model: give --model FOLDER (a Hugging Face folder with config.json)");
  }
  ModelPlan plan;
  SPIN_ASSIGN_OR_RETURN(plan.folder, ReadModelFolder(config.model_path));
  const ModelConfig& model = plan.folder.config;
  if (config.use_generation_config) SPIN_RETURN_IF_ERROR(CheckDefaults(plan.folder));
  SPIN_RETURN_IF_ERROR(CheckLengths(config, model));
  plan.max_model_len = config.max_model_len.value_or(model.max_position);
  SPIN_ASSIGN_OR_RETURN(plan.backend, CreateBackend(config.backend));
  SPIN_ASSIGN_OR_RETURN(plan.algorithm,
                        MakeSparseAlgorithm(config.sparse, {.num_layers = model.num_layers,
                                                            .num_q_heads = model.num_q_heads,
                                                            .num_kv_heads = model.num_kv_heads,
                                                            .head_dim = model.head_dim}));
  const KvGeometry geometry =
      MakeGeometry(model, *plan.algorithm, config.dtype,
                   config.engine.max_num_seqs * kRowsPerSequence, plan.max_model_len);
  const DeviceInfo& info = plan.backend.device->info();
  SPIN_ASSIGN_OR_RETURN(const int32_t max_budget_pages,
                        MaxBudgetPages(config.sparse, geometry, *plan.algorithm));
  plan.executor = {.max_batch = config.engine.max_num_seqs,
                   .max_prefill_tokens = config.engine.max_batched_tokens,
                   .max_model_len = plan.max_model_len,
                   .tile_tokens = config.prefill_tile_tokens > 0 ? config.prefill_tile_tokens
                                                                 : info.prefill_tile_tokens,
                   .eviction = config.eviction,
                   .overlap = config.overlap,
                   .max_budget_pages = max_budget_pages,
                   .stage_sample_period = config.stage_sample_period};
  SPIN_RETURN_IF_ERROR(CheckServed(plan, geometry));
  plan.weight_bytes = WeightBytes(model, config.dtype) + plan.algorithm->WeightBytes(config.dtype);
  plan.executor_bytes = ModelExecutor::DeviceBytes(plan.executor, model, *plan.algorithm, geometry,
                                                   config.dtype, *plan.backend.ops);
  SPIN_ASSIGN_OR_RETURN(const int64_t cache_bytes, CacheBudget(config, info, plan));
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    plan.cache.layers.push_back(plan.algorithm->Demand(layer));
  }
  const int64_t auto_host_pool =
      MayTier(config.placement, plan.cache.layers) ? AutoHostPool(info) : 0;
  SPIN_ASSIGN_OR_RETURN(
      plan.cache.plan,
      PlanMemory(geometry, cache_bytes, config.host_pool_bytes.value_or(auto_host_pool)));
  if (plan.cache.plan.host_bytes > info.host_bytes) {
    return ResourceExhausted("memory.host_pool: %s, but the process may use %s of host memory",
                             FormatBytes(plan.cache.plan.host_bytes), FormatBytes(info.host_bytes));
  }
  plan.cache.placement = config.placement;
  plan.cache.min_buffer_ratio = config.min_buffer_ratio;
  plan.cache.max_buffer_ratio = config.max_buffer_ratio;
  plan.cache.demote_for_buffers = config.demote_for_buffers;
  plan.cache.max_model_len = plan.max_model_len;
  plan.cache.max_budget_pages = max_budget_pages;
  plan.cache.row_budgets = plan.algorithm->row_budgets();
  return plan;
}

absl::StatusOr<std::unique_ptr<ModelStack>> ModelStack::Create(const ServerConfig& config,
                                                               ModelPlan plan,
                                                               MetricsRegistry& metrics) {
  std::unique_ptr<ModelStack> stack(new ModelStack(std::move(plan)));
  SPIN_RETURN_IF_ERROR(stack->Load(config));
  stack->memory_ = std::make_unique<KvCacheManager>(stack->plan_.cache);
  EngineOptions options = config.engine;
  options.eos_token_ids = stack->plan_.folder.eos_token_ids();
  options.max_model_len = stack->plan_.max_model_len;
  options.seed = config.seed;
  stack->engine_ = std::make_unique<Engine>(
      options, Engine::Dependencies{.executor = stack->executor_.get(),
                                    .memory = stack->memory_.get(),
                                    .tokenizer = stack->plan_.folder.tokenizer.get(),
                                    .clock = &stack->clock_,
                                    .metrics = &metrics});
  stack->RegisterMetrics(metrics);
  return stack;
}

ModelStack::~ModelStack() = default;

absl::Status ModelStack::Load(const ServerConfig& config) {
  Device& device = *plan_.backend.device;
  Ops& ops = *plan_.backend.ops;
  const ModelConfig& model = plan_.folder.config;
  auto begin = std::chrono::steady_clock::now();
  ProgressLog loading("loading weights");
  const auto progress = [&](int64_t done, int64_t total) { loading.Report(done, total); };
  absl::StatusOr<ModelWeights> weights = absl::InternalError("unset");
  if (config.dummy_weights) {
    weights = MakeDummyWeights(model, config.seed, config.dtype, device, ops, progress);
  } else {
    SPIN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(plan_.folder.path));
    weights = LoadWeights(model, checkpoint, config.dtype, device, ops, progress);
  }
  if (!weights.ok()) return weights.status();
  SPIN_LOG(INFO, "weights  %s in %.1f s", FormatBytes(weights->bytes), SecondsSince(begin));

  begin = std::chrono::steady_clock::now();
  const std::unique_ptr<Stream> stream = device.CreateStream("start");
  SPIN_ASSIGN_OR_RETURN(store_, KvStore::Create(device, *stream, plan_.cache.plan, LogPinning));
  SPIN_ASSIGN_OR_RETURN(executor_,
                        ModelExecutor::Create(plan_.executor, model, *std::move(weights),
                                              std::move(plan_.algorithm), device, ops, *store_));
  SPIN_LOG(INFO, "pools    %s on the device, %s on the host, %s workspace in %.1f s",
           FormatBytes(plan_.cache.plan.hbm_bytes()), FormatBytes(plan_.cache.plan.host_bytes),
           FormatBytes(executor_->workspace_bytes()), SecondsSince(begin));

  begin = std::chrono::steady_clock::now();
  speed_ = MeasureTierSpeed(*store_, device, ops, *stream);
  SPIN_LOG(INFO, "speed, measured in %.2f s\n%s", SecondsSince(begin), speed_.ToText());
  return absl::OkStatus();
}

void ModelStack::RegisterMetrics(MetricsRegistry& metrics) {
  const MemoryPlan& plan = plan_.cache.plan;
  AddCacheConfigInfo(metrics, plan.geometry.page_tokens,
                     plan.resident_tokens() / plan.geometry.page_tokens);
  const ModelExecutor* executor = executor_.get();
  const auto counted = [=](uint64_t RetrieveCounters::*value) {
    return [=] { return static_cast<double>(executor->retrieve_counters().*value); };
  };
  const auto page_bytes = static_cast<uint64_t>(plan.geometry.page_bytes());
  metrics.AddCallback("spin:retrieve_hits_total",
                      "Selected pages that were in HBM (Tiered sequences).", true,
                      counted(&RetrieveCounters::hits));
  metrics.AddCallback("spin:retrieve_misses_total",
                      "Selected pages that were fetched from the host.", true,
                      counted(&RetrieveCounters::misses));
  metrics.AddCallback("spin:retrieve_bytes_total", "Bytes fetched from the host.", true, [=] {
    return static_cast<double>(executor->retrieve_counters().Bytes(page_bytes));
  });
  metrics.AddCallback("spin:evictions_total", "Pages that lost their slot to a missing one.", true,
                      counted(&RetrieveCounters::evictions));
  metrics.AddCallback("spin:spared_pages_total",
                      "Pages that the budget had room for, left out by a threshold.", true,
                      counted(&RetrieveCounters::spared));
  AddSpeedMetrics(metrics, speed_);
  constexpr std::pair<Stage, const char*> kDecodeStages[] = {
      {Stage::kIndex, "index"},   {Stage::kSelect, "select"}, {Stage::kLookup, "lookup"},
      {Stage::kAppend, "append"}, {Stage::kGather, "gather"}, {Stage::kAttention, "attention"},
      {Stage::kRest, "rest"}};
  constexpr std::pair<Stage, const char*> kPrefillStages[] = {{Stage::kIndex, "index"},
                                                              {Stage::kAppend, "offload"}};
  AddStageMetrics(metrics, "decode", kDecodeStages, [=] { return executor->decode_times(); });
  AddStageMetrics(metrics, "prefill", kPrefillStages, [=] { return executor->prefill_times(); });
}

}  // namespace spin
