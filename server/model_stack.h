// Everything below the network, wired: backend, weights, KV store, executor, memory manager,
// engine.
//
// Built step by step with progress in the log; the order of the members is the order of
// construction, destruction runs backwards. App owns one; tests and tools build one to run a model
// in their own process.
#pragma once

#include <memory>
#include <string>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/status.h"
#include "engine/engine.h"
#include "kernels/backend.h"
#include "memory/kv_cache_manager.h"
#include "memory/kv_store.h"
#include "memory/tier_speed.h"
#include "models/model_executor.h"
#include "models/model_folder.h"
#include "server/server_config.h"

namespace spin {

// What can be said before any weight is read: the model, the device, the algorithm, the memory
// plan.
struct ModelPlan {
  ModelFolder folder;
  Backend backend;
  std::unique_ptr<SparseAlgorithm> algorithm;
  ModelExecutorOptions executor;
  int32_t max_model_len = 0;
  KvCacheOptions cache;        // with the memory plan
  int64_t weight_bytes = 0;    // on the device
  int64_t executor_bytes = 0;  // on the device: workspace, tables of the model

  std::string ToText() const;  // the boot summary
};

// Reads the model folder, opens the device, plans the memory. Errors name the key or the file.
absl::StatusOr<ModelPlan> PlanModel(const ServerConfig& config);

class ModelStack {
 public:
  static absl::StatusOr<std::unique_ptr<ModelStack>> Create(const ServerConfig& config,
                                                            ModelPlan plan,
                                                            MetricsRegistry& metrics);
  ~ModelStack();

  const ModelPlan& plan() const { return plan_; }
  Engine& engine() { return *engine_; }
  KvCacheManager& memory() { return *memory_; }
  ModelExecutor& executor() { return *executor_; }
  const KvStore& store() const { return *store_; }

 private:
  explicit ModelStack(ModelPlan plan) : plan_(std::move(plan)) {}
  absl::Status Load(const ServerConfig& config);
  void RegisterMetrics(MetricsRegistry& metrics);

  ModelPlan plan_;
  RealClock clock_;
  std::unique_ptr<KvStore> store_;
  TierSpeed speed_;
  std::unique_ptr<ModelExecutor> executor_;
  std::unique_ptr<KvCacheManager> memory_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace spin
