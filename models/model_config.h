// What a model is: config.json of a Hugging Face folder, as transformers 4 and 5 write it, checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "kernels/dtype.h"

namespace spin {

enum class RopeScaling { kNone, kLinear, kLlama3, kYarn };

// Rotary position embedding. The formulas are in rope_table.cc.
struct RopeConfig {
  double theta = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  double original_max_position = 0;  // llama3, yarn
  double low_freq_factor = 1;        // llama3
  double high_freq_factor = 4;       // llama3
  double beta_fast = 32;             // yarn
  double beta_slow = 1;              // yarn
  double attention_factor = 0;       // yarn; 0: 0.1 ln(factor) + 1
  bool truncate = true;              // yarn: round the correction range to whole dimensions
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM" or "Qwen3ForCausalLM"
  int32_t hidden = 0;
  int32_t intermediate = 0;
  int32_t num_layers = 0;
  int32_t num_q_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab_size = 0;
  int32_t max_position = 0;
  float rms_norm_eps = 1e-6f;
  bool tied_embeddings = false;
  bool qk_norm = false;  // Qwen3
  RopeConfig rope;
  DType dtype = DType::kBf16;          // of the checkpoint
  std::vector<int32_t> eos_token_ids;  // may be empty

  int32_t q_width() const { return num_q_heads * head_dim; }
  int32_t kv_width() const { return num_kv_heads * head_dim; }
  int32_t qkv_width() const { return q_width() + 2 * kv_width(); }
  // Parameters in all; the embedding counts once when tied.
  int64_t num_parameters() const;
};

// InvalidArgument that names the key: missing, of the wrong type, out of range, or asking for what
// is not supported.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json);

}  // namespace spin
