// What the forward pass of one server shares: the model, its weights, the device, the cache, the
// algorithm. Owned by the ModelExecutor; fixed after start (but for
// what measuring tools switch).
#pragma once

#include "kernels/device.h"
#include "kernels/ops.h"
#include "models/model_config.h"
#include "models/pipeline/step_observer.h"
#include "models/sparse/sparse_algorithm.h"
#include "models/weights.h"

namespace spin {

struct ModelContext {
  ModelConfig config;
  ModelWeights weights;
  const float* rope_table = nullptr;  // [max_model_len][head_dim], see rope_table.h
  Device* device = nullptr;
  Ops* ops = nullptr;
  KvTables tables;
  const SparseAlgorithm* algorithm = nullptr;
  Eviction eviction = Eviction::kBucketed;

  // Of measuring tools; ModelExecutor::Observe, LeaveOutOffload.
  StepObserver* observer = nullptr;
  bool leaves_out_offload = false;
};

}  // namespace spin
