// What the HTTP and gRPC front ends share: the engine, the text side of the model, and the state of the server.
//
// Built by App before the listeners start. `metrics`, `version` and `system_fingerprint` are set before that; the other
// fields before the state becomes kReady, and never change after. Any thread may read them once the state is not
// kLoading.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/metrics.h"
#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/tokenizer.h"
#include "server/generation_backend.h"

namespace spin {

enum class ServerState { kLoading, kReady, kDraining };

// Defaults of generation_config.json that a request's own fields override (model.generation_config: auto).
struct SamplingDefaults {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

struct ModelInfo {
  std::vector<std::string> served_names;  // the first is the one in answers
  std::string path;
  std::string architecture;  // "Qwen3ForCausalLM"
  std::string dtype;
  std::string algorithm;  // sparse algorithm: "dense", "quest", "shadowkv", "seer", "retroinfer"
  int64_t created = 0;    // Unix seconds
  int32_t max_model_len = 0;
  int32_t vocab_size = 0;
  std::vector<int32_t> eos_token_ids;
  std::string bos_token, eos_token;  // text, for chat templates
  SamplingDefaults defaults;
};

struct ServingContext {
  std::atomic<ServerState> state{ServerState::kLoading};
  GenerationBackend* backend = nullptr;
  const Tokenizer* tokenizer = nullptr;         // null: the model has none; text gets a 400
  const ChatTemplate* chat_template = nullptr;  // null: the model has none; chat gets a 400
  ModelInfo model;
  const MetricsRegistry* metrics = nullptr;
  std::string version;             // "0.1.0"
  std::string system_fingerprint;  // stable per build and configuration
};

}  // namespace spin
