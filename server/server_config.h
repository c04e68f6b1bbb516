// The configuration as typed values; the schema and its text form are in config_schema.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/logging.h"
#include "engine/engine_options.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "kernels/params.h"
#include "memory/kv_cache_manager.h"
#include "models/overlap_policy.h"
#include "models/sparse/sparse_options.h"

namespace spin {

struct ServerConfig {
  // model
  std::string model_path;
  std::vector<std::string> served_names;  // empty: the folder's name
  bool dummy_weights = false;
  DType dtype = DType::kBf16;
  std::optional<int32_t> max_model_len;  // absent: the model's own
  bool use_generation_config = true;
  uint64_t seed = 0;

  // server
  std::string host;
  int32_t http_port = 0;
  int32_t grpc_port = 0;
  int64_t max_body_bytes = 0;
  int64_t drain_timeout_ms = 0;

  // memory; absent sizes are "auto"
  std::optional<int64_t> hbm_budget_bytes;
  std::optional<int64_t> host_pool_bytes;
  double min_buffer_ratio = 0;
  double max_buffer_ratio = 0;
  bool demote_for_buffers = false;
  PlacementPolicy placement = PlacementPolicy::kAuto;
  Eviction eviction = Eviction::kBucketed;
  RetrieveOverlap overlap = RetrieveOverlap::kAuto;

  SparseOptions sparse;
  EngineOptions engine;             // eos_token_ids and max_model_len are the model's
  int32_t prefill_tile_tokens = 0;  // 0: what suits the device
  BackendOptions backend;

  int32_t stage_sample_period = 0;  // decode steps a timed one; 0: none
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

}  // namespace spin
