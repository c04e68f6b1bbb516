#include "server/model_stack.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/logging.h"
#include "common/units.h"
#include "engine/engine_metrics.h"
#include "models/checkpoint.h"
#include "models/sparse/sparse_registry.h"
#include "models/weights.h"

namespace spin {
namespace {

// Sequences may hold memory without running (suspended): rows of the tables beyond those of a step.
constexpr int32_t kRowsPerSequence = 2;

// "auto" budgets: small shares of the machine, so that a laptop stays usable.
int64_t AutoHbmBudget(const DeviceInfo& info) {
  return std::min(2 * kGiB, info.device_bytes / 8);
}
int64_t AutoHostPool(const DeviceInfo& info) {
  return std::min(4 * kGiB, info.host_bytes / 4);
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

absl::Status CheckLengths(const ServerConfig& config, const ModelConfig& model) {
  if (config.max_model_len.has_value() && *config.max_model_len > model.max_position) {
    return InvalidArgument("model.max_model_len: %d is more than the model's context of %d tokens",
                           *config.max_model_len, model.max_position);
  }
  return absl::OkStatus();
}

}  // namespace

std::string ModelPlan::ToText() const {
  const ModelConfig& model = folder.config;
  return absl::StrFormat(
      "model    %s: %s, %.1f M parameters, %d layers, %d query and %d KV heads of %d, context %d\n"
      "device   %s\n%s",
      folder.path, model.architecture, static_cast<double>(model.num_parameters()) / 1e6,
      model.num_layers, model.num_q_heads, model.num_kv_heads, model.head_dim, max_model_len,
      backend.device->info().name, cache.plan.ToText());
}

absl::StatusOr<ModelPlan> PlanModel(const ServerConfig& config) {
  if (config.model_path.empty()) {
    return InvalidArgument(
        "no model: give --model FOLDER (a Hugging Face folder with config.json)");
  }
  ModelPlan plan;
  SPIN_ASSIGN_OR_RETURN(plan.folder, ReadModelFolder(config.model_path));
  const ModelConfig& model = plan.folder.config;
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
  SPIN_ASSIGN_OR_RETURN(plan.cache.plan,
                        PlanMemory(geometry, config.hbm_budget_bytes.value_or(AutoHbmBudget(info)),
                                   config.host_pool_bytes.value_or(AutoHostPool(info))));
  plan.cache.placement = config.placement;
  plan.cache.min_buffer_ratio = config.min_buffer_ratio;
  plan.cache.max_model_len = plan.max_model_len;
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    plan.cache.layers.push_back(plan.algorithm->Demand(layer));
  }
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
  SPIN_ASSIGN_OR_RETURN(store_, KvStore::Create(device, *stream, plan_.cache.plan));
  SPIN_ASSIGN_OR_RETURN(
      executor_, ModelExecutor::Create({.max_batch = config.engine.max_num_seqs,
                                        .max_prefill_tokens = config.engine.max_batched_tokens,
                                        .max_model_len = plan_.max_model_len,
                                        .tile_tokens = config.prefill_tile_tokens,
                                        .eviction = config.eviction},
                                       model, *std::move(weights), std::move(plan_.algorithm),
                                       device, ops, *store_));
  SPIN_LOG(INFO, "pools    %s on the device, %s on the host, %s workspace in %.1f s",
           FormatBytes(plan_.cache.plan.hbm_bytes()), FormatBytes(plan_.cache.plan.host_bytes),
           FormatBytes(executor_->workspace_bytes()), SecondsSince(begin));
  return absl::OkStatus();
}

void ModelStack::RegisterMetrics(MetricsRegistry& metrics) {
  const MemoryPlan& plan = plan_.cache.plan;
  AddCacheConfigInfo(metrics, plan.geometry.page_tokens,
                     plan.resident_tokens() / plan.geometry.page_tokens);
  const RetrieveCounters* counters = &executor_->retrieve_counters();
  const auto read = [](const uint64_t& value) {
    return static_cast<double>(__atomic_load_n(&value, __ATOMIC_RELAXED));
  };
  metrics.AddCallback("spin:retrieve_hits_total",
                      "Selected pages that were in HBM (Tiered sequences).", true,
                      [=] { return read(counters->hits); });
  metrics.AddCallback("spin:retrieve_misses_total",
                      "Selected pages that were fetched from the host.", true,
                      [=] { return read(counters->misses); });
  metrics.AddCallback("spin:retrieve_bytes_total", "Bytes fetched from the host.", true,
                      [=] { return read(counters->bytes); });
  metrics.AddCallback("spin:evictions_total", "Pages that lost their slot to a missing one.", true,
                      [=] { return read(counters->evictions); });
}

}  // namespace spin
