#include "models/model_config.h"

#include <utility>

#include "models/json_reader.h"

namespace spin {
namespace {

constexpr int32_t kMaxDimension = 1 << 20;

// Assigns the value of an optional key, where present.
#define SPIN_READ_NUMBER(reader, key, min, max, target)                           \
  do {                                                                            \
    SPIN_ASSIGN_OR_RETURN(const auto spin_value, (reader).Number(key, min, max)); \
    if (spin_value.has_value())                                                   \
      (target) = static_cast<std::decay_t<decltype(target)>>(*spin_value);        \
  } while (false)

absl::Status ParseScaling(const JsonReader& scaling, double max_position, RopeConfig& rope) {
  SPIN_ASSIGN_OR_RETURN(std::optional<std::string> type, scaling.String("rope_type"));
  if (!type.has_value()) {
    SPIN_ASSIGN_OR_RETURN(type, scaling.String("type"));
  }
  if (!type.has_value() || *type == "default") return absl::OkStatus();
  if (*type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (*type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
  } else if (*type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
  } else {
    return scaling.Error("rope_type",
                         "is '" + *type + "'; supported: default, linear, llama3, yarn");
  }
  SPIN_ASSIGN_OR_RETURN(const auto factor, scaling.Number("factor", 1, 1e6));
  if (!factor.has_value()) return scaling.Error("factor", "is missing");
  rope.factor = *factor;
  rope.original_max_position = max_position;
  SPIN_READ_NUMBER(scaling, "original_max_position_embeddings", 1, 1e9, rope.original_max_position);
  SPIN_READ_NUMBER(scaling, "low_freq_factor", 1e-6, 1e6, rope.low_freq_factor);
  SPIN_READ_NUMBER(scaling, "high_freq_factor", 1e-6, 1e6, rope.high_freq_factor);
  SPIN_READ_NUMBER(scaling, "beta_fast", 1e-6, 1e6, rope.beta_fast);
  SPIN_READ_NUMBER(scaling, "beta_slow", 1e-6, 1e6, rope.beta_slow);
  SPIN_READ_NUMBER(scaling, "attention_factor", 1e-6, 1e6, rope.attention_factor);
  SPIN_ASSIGN_OR_RETURN(const auto truncate, scaling.Bool("truncate"));
  rope.truncate = truncate.value_or(true);
  if (rope.scaling == RopeScaling::kLlama3 && rope.high_freq_factor <= rope.low_freq_factor) {
    return scaling.Error("high_freq_factor", "is not above low_freq_factor");
  }
  return absl::OkStatus();
}

// transformers 4: rope_theta and rope_scaling; transformers 5: rope_parameters holds both.
absl::Status ParseRope(const JsonReader& config, ModelConfig& model) {
  SPIN_READ_NUMBER(config, "rope_theta", 1, 1e12, model.rope.theta);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* object = config.Find(key);
    if (object == nullptr) continue;
    if (!object->is_object()) return config.Error(key, "is not an object");
    const JsonReader scaling(*object, std::string("config.json ") + key);
    SPIN_READ_NUMBER(scaling, "rope_theta", 1, 1e12, model.rope.theta);
    SPIN_ASSIGN_OR_RETURN(const auto partial, scaling.Number("partial_rotary_factor", 0, 1));
    if (partial.value_or(1) != 1) return scaling.Error("partial_rotary_factor", "is not 1");
    SPIN_RETURN_IF_ERROR(ParseScaling(scaling, model.max_position, model.rope));
  }
  // YaRN asks which dimension makes how many turns: with 1 all make as many.
  if (model.rope.scaling == RopeScaling::kYarn && model.rope.theta <= 1) {
    return config.Error("rope_theta", "is not above 1, which yarn needs");
  }
  return absl::OkStatus();
}

absl::Status ParseArchitecture(const JsonReader& config, ModelConfig& model) {
  const Json* list = config.Find("architectures");
  if (list == nullptr || !list->is_array() || list->size() != 1 || !(*list)[0].is_string()) {
    return config.Error("architectures", "is not a list of one name");
  }
  model.architecture = (*list)[0].get<std::string>();
  if (model.architecture == "Qwen3ForCausalLM") {
    model.qk_norm = true;
  } else if (model.architecture != "LlamaForCausalLM") {
    return config.Error("architectures", "is '" + model.architecture +
                                             "'; supported: Qwen3ForCausalLM, LlamaForCausalLM");
  }
  SPIN_ASSIGN_OR_RETURN(const auto activation, config.String("hidden_act"));
  if (activation.value_or("silu") != "silu") return config.Error("hidden_act", "is not 'silu'");
  for (const char* key : {"attention_bias", "mlp_bias", "use_sliding_window"}) {
    SPIN_ASSIGN_OR_RETURN(const auto flag, config.Bool(key));
    if (flag.value_or(false)) return config.Error(key, "is true, which is not supported");
  }
  return absl::OkStatus();
}

absl::Status ParseDtype(const JsonReader& config, ModelConfig& model) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    SPIN_ASSIGN_OR_RETURN(const auto name, config.String(key));
    if (!name.has_value()) continue;
    if (*name == "bfloat16") {
      model.dtype = DType::kBf16;
    } else if (*name == "float32") {
      model.dtype = DType::kF32;
    } else if (*name == "float16") {
      model.dtype = DType::kF16;
    } else {
      return config.Error(key, "is '" + *name + "'; supported: bfloat16, float16, float32");
    }
  }
  return absl::OkStatus();
}

absl::Status ParseDimensions(const JsonReader& config, ModelConfig& model) {
  SPIN_ASSIGN_OR_RETURN(model.hidden, config.RequiredInt("hidden_size", 1, kMaxDimension));
  SPIN_ASSIGN_OR_RETURN(model.intermediate,
                        config.RequiredInt("intermediate_size", 1, kMaxDimension));
  SPIN_ASSIGN_OR_RETURN(model.num_layers, config.RequiredInt("num_hidden_layers", 1, 1024));
  SPIN_ASSIGN_OR_RETURN(model.num_q_heads, config.RequiredInt("num_attention_heads", 1, 1024));
  SPIN_ASSIGN_OR_RETURN(const auto kv_heads, config.Int("num_key_value_heads", 1, 1024));
  model.num_kv_heads = static_cast<int32_t>(kv_heads.value_or(model.num_q_heads));
  SPIN_ASSIGN_OR_RETURN(const auto head_dim, config.Int("head_dim", 1, kMaxDimension));
  model.head_dim = static_cast<int32_t>(head_dim.value_or(model.hidden / model.num_q_heads));
  SPIN_ASSIGN_OR_RETURN(model.vocab_size, config.RequiredInt("vocab_size", 1, 1 << 24));
  SPIN_ASSIGN_OR_RETURN(model.max_position,
                        config.RequiredInt("max_position_embeddings", 1, 1 << 24));
  if (model.num_q_heads % model.num_kv_heads != 0) {
    return config.Error("num_attention_heads", "is not a multiple of num_key_value_heads");
  }
  if (model.head_dim != 64 && model.head_dim != 128) {
    return config.Error("head_dim",
                        absl::StrFormat("is %d; supported: 64 and 128", model.head_dim));
  }
  for (const auto& [key, value] : {std::pair<const char*, int32_t>{"hidden_size", model.hidden},
                                   {"intermediate_size", model.intermediate}}) {
    if (value % 16 != 0) return config.Error(key, "is not a multiple of 16");
  }
  return absl::OkStatus();
}

}  // namespace

int64_t ModelConfig::num_parameters() const {
  const int64_t layer =
      int64_t{hidden} * (qkv_width() + q_width() + 3 * int64_t{intermediate} + 2) +
      (qk_norm ? 2 * head_dim : 0);
  return num_layers * layer + int64_t{vocab_size} * hidden * (tied_embeddings ? 1 : 2) + hidden;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json) {
  SPIN_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(json, "config.json"));
  const JsonReader config(object, "config.json");
  ModelConfig model;
  SPIN_RETURN_IF_ERROR(ParseArchitecture(config, model));
  SPIN_RETURN_IF_ERROR(ParseDimensions(config, model));
  SPIN_RETURN_IF_ERROR(ParseRope(config, model));
  SPIN_RETURN_IF_ERROR(ParseDtype(config, model));
  SPIN_READ_NUMBER(config, "rms_norm_eps", 0, 1, model.rms_norm_eps);
  SPIN_ASSIGN_OR_RETURN(const auto tied, config.Bool("tie_word_embeddings"));
  model.tied_embeddings = tied.value_or(false);
  SPIN_ASSIGN_OR_RETURN(model.eos_token_ids, config.IntList("eos_token_id"));
  return model;
}

}  // namespace spin
