// The evaluation: what is measured on (Inputs), variant by variant, against dense.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "models/model_folder.h"
#include "server/server_config.h"
#include "tools/eval/attention_meter.h"
#include "tools/eval/greedy.h"
#include "tools/eval/logit_distance.h"
#include "tools/eval/options.h"
#include "tools/eval/task.h"
#include "tools/eval/variant.h"

namespace spin::eval {

struct TaskScore {
  std::string task;
  double score = 0;  // mean over the samples, 0..1
};

// Of one variant. What was not asked for is absent.
struct VariantResult {
  Variant variant;
  std::optional<LogitSummary> logits;
  std::vector<LayerRecall> recall;  // empty: not measured
  std::optional<GreedyAgreement> greedy;
  std::vector<TaskScore> tasks;

  double mean_task_score() const;  // 0 without tasks
};

struct Evaluation {
  std::string model;  // folder
  std::string device;
  std::string documents;  // what they are made of, or the file
  DType dtype = DType::kBf16;
  double dense_perplexity = 0;         // of the forced tokens; 0: kl was not measured
  double seconds = 0;                  // all of it
  std::vector<VariantResult> results;  // dense first
};

// Dense, then for each algorithm its exact mode and each budget; with the budgets of the first the controls.
// Budgets that an algorithm cannot have are left out. InvalidArgument: a named algorithm can have none.
absl::StatusOr<std::vector<VariantGroup>> ListVariants(const Options& options,
                                                       const ServerConfig& config,
                                                       const ModelConfig& model);

// `progress` hears each group before it runs.
absl::StatusOr<Evaluation> Evaluate(const Options& options, const ServerConfig& config,
                                    const std::function<void(const VariantGroup&)>& progress);

}  // namespace spin::eval
