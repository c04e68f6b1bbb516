// config.json in the styles of transformers 4 and 5, and what is refused.
#include "models/model_config.h"

#include <catch2/catch.hpp>

#include "tests/models/checkpoint_files.h"

namespace spin {
namespace {

using Catch::Contains;
using nlohmann::json;

std::string ErrorOf(const json& config) {
  const auto parsed = ParseModelConfig(config.dump());
  if (parsed.ok()) return "";
  CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument);
  return MessageOf(parsed.status());
}

TEST_CASE("transformers 5: dtype and rope_parameters") {
  const auto config = ParseModelConfig(testing::SmallConfig().dump());
  REQUIRE(config.ok());
  CHECK(config->qk_norm);
  CHECK(config->tied_embeddings);
  CHECK(config->dtype == DType::kBf16);
  CHECK(config->rope.scaling == RopeScaling::kYarn);
  CHECK(config->rope.theta == 1e6);
  CHECK(config->rope.factor == 4);
  CHECK(config->rope.original_max_position == 1024);
  CHECK(config->eos_token_ids == std::vector<int32_t>{2, 3});
  CHECK(config->q_width() == 256);
  CHECK(config->qkv_width() == 512);
  // embedding + 2 layers x (qkv, output, gate, up, down, 2 norms, q and k norm) + final norm
  CHECK(config->num_parameters() ==
        320 * 64 + 2 * (512 * 64 + 256 * 64 + 3 * 96 * 64 + 2 * 64 + 2 * 64) + 64);
}

TEST_CASE(
    "transformers 4: torch_dtype, rope_theta and rope_scaling, absent keys at their defaults") {
  json file = testing::SmallConfig();
  file["architectures"] = {"LlamaForCausalLM"};
  for (const char* key :
       {"dtype", "rope_parameters", "head_dim", "num_key_value_heads", "tie_word_embeddings"}) {
    file.erase(key);
  }
  file["hidden_size"] = 256;
  file["torch_dtype"] = "float16";
  file["rope_theta"] = 5e5;
  file["eos_token_id"] = 2;
  file["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 2048}};
  const auto config = ParseModelConfig(file.dump());
  REQUIRE(config.ok());
  CHECK_FALSE(config->qk_norm);
  CHECK_FALSE(config->tied_embeddings);
  CHECK(config->head_dim == 64);
  CHECK(config->num_kv_heads == 4);
  CHECK(config->dtype == DType::kF16);
  CHECK(config->rope.theta == 5e5);
  CHECK(config->rope.scaling == RopeScaling::kLlama3);
  CHECK(config->rope.original_max_position == 2048);
  CHECK(config->eos_token_ids == std::vector<int32_t>{2});

  file["rope_scaling"] = nullptr;
  CHECK(ParseModelConfig(file.dump())->rope.scaling == RopeScaling::kNone);
  file["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};  // the key's old name
  CHECK(ParseModelConfig(file.dump())->rope.scaling == RopeScaling::kLinear);
}

TEST_CASE("What cannot be served is refused by key") {
  const auto refused = [](const char* key, const json& value, const std::string& why) {
    json file = testing::SmallConfig();
    file[key] = value;
    INFO(key << ": " << value.dump());
    CHECK_THAT(ErrorOf(file), Contains("config.json") && Contains(key) && Contains(why));
  };
  refused("architectures", {"MambaForCausalLM"}, "MambaForCausalLM");
  refused("architectures", json::array(), "list of one name");
  refused("hidden_act", "gelu", "silu");
  refused("attention_bias", true, "not supported");
  refused("use_sliding_window", true, "not supported");
  refused("dtype", "int8", "int8");
  refused("head_dim", 96, "96");
  refused("hidden_size", 72, "multiple of 16");
  refused("hidden_size", -64, "integer");
  refused("hidden_size", "64", "integer");
  refused("hidden_size", 64.5, "integer");
  refused("hidden_size", nullptr, "missing");
  refused("num_attention_heads", 3, "multiple of num_key_value_heads");
  refused("num_key_value_heads", 0, "integer");
  refused("num_hidden_layers", 1e30, "integer");
  refused("vocab_size", uint64_t{1} << 63, "integer");
  refused("rms_norm_eps", -1, "-1");
  refused("tie_word_embeddings", "yes", "true or false");
  refused("eos_token_id", {-1}, "token ids");
  refused("rope_parameters", 3, "object");
}

TEST_CASE("Rope scaling that is unknown or incomplete is refused") {
  const auto refused = [](const char* key, const json& value, const std::string& why) {
    json file = testing::SmallConfig();
    file["rope_parameters"][key] = value;
    INFO(key << ": " << value.dump());
    CHECK_THAT(ErrorOf(file), Contains("rope_parameters") && Contains(key) && Contains(why));
  };
  refused("rope_type", "dynamic", "dynamic");
  refused("factor", nullptr, "missing");
  refused("factor", 0, "0");
  refused("partial_rotary_factor", 0.5, "not 1");
  json file = testing::SmallConfig();
  file["rope_parameters"] = {
      {"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}};
  CHECK_THAT(ErrorOf(file), Contains("high_freq_factor"));

  // Wherever it stands, and whatever stood before it.
  file = testing::SmallConfig();
  file["rope_parameters"]["rope_theta"] = 1;
  CHECK_THAT(ErrorOf(file), Contains("rope_theta") && Contains("above 1"));
  file["rope_scaling"] = file["rope_parameters"];
  file["rope_scaling"].erase("rope_theta");
  file["rope_parameters"] = {{"rope_theta", 1}};
  CHECK_THAT(ErrorOf(file), Contains("rope_theta") && Contains("above 1"));
}

TEST_CASE("Text that is no JSON object is refused") {
  for (const std::string& text : {std::string(""), std::string("{"), std::string("[]"),
                                  std::string(100000, '['), std::string("{\"a\":\"\xff\"}")}) {
    const auto parsed = ParseModelConfig(text);
    REQUIRE_FALSE(parsed.ok());
    CHECK_THAT(MessageOf(parsed.status()), Contains("config.json"));
  }
}

}  // namespace
}  // namespace spin
