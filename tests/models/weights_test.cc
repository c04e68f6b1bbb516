// Loading tensors of each type into the device's layout, and dummy weights.
#include "models/weights.h"

#include <catch2/catch.hpp>

#include <cmath>

#include "kernels/backend.h"
#include "tests/models/checkpoint_files.h"

namespace spin {
namespace {

ModelConfig Config() {
  return ParseModelConfig(testing::SmallConfig().dump()).value();
}

void NoProgress(int64_t, int64_t) {}

Backend Cpu() {
  return CreateBackend({.device = "cpu", .threads = 2}).value();
}

// Every byte that the model owns on the (host-readable) device.
std::string BytesOf(const ModelWeights& weights) {
  std::string bytes;
  for (const Buffer& buffer : weights.buffers) {
    bytes.append(static_cast<const char*>(buffer.data()), static_cast<std::size_t>(buffer.bytes()));
  }
  return bytes;
}

TEST_CASE("Dummy weights are a function of their seed") {
  const Backend cpu = Cpu();
  const auto make = [&](uint64_t seed) {
    return MakeDummyWeights(Config(), seed, DType::kF32, *cpu.device, *cpu.ops, NoProgress).value();
  };
  const ModelWeights a = make(1);
  const ModelWeights b = make(1);
  const ModelWeights c = make(2);
  const auto* x = static_cast<const float*>(a.embedding);
  const auto* y = static_cast<const float*>(b.embedding);
  const auto* z = static_cast<const float*>(c.embedding);
  const int64_t count = 320 * 64;
  CHECK(std::equal(x, x + count, y));
  CHECK_FALSE(std::equal(x, x + count, z));
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += x[i] * x[i];
  CHECK(std::sqrt(squares / count) == Approx(1 / std::sqrt(64.0)).epsilon(0.1));
  for (int32_t i = 0; i < 64; ++i) {
    CHECK(a.final_norm[i] == b.final_norm[i]);
    CHECK(std::abs(a.final_norm[i] - 1) < 0.5f);
  }
  CHECK(BytesOf(a) == BytesOf(b));
}

// One checkpoint of the small model, each value exact in every type.
void WriteModel(const std::string& folder, const std::string& dtype, const std::string& leave_out) {
  nlohmann::json header;
  std::string data;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    if (name == leave_out) return;
    const uint64_t begin = data.size();
    int64_t elements = 1;
    for (const int64_t n : shape) elements *= n;
    for (int64_t i = 0; i < elements; ++i) {
      const float value = static_cast<float>((i * 7 + static_cast<int64_t>(name.size())) % 17 - 8);
      uint32_t bits = 0;
      std::memcpy(&bits, &value, 4);
      if (dtype == "F32") data.append(reinterpret_cast<const char*>(&bits), 4);
      uint16_t half = static_cast<uint16_t>(bits >> 16);
      if (dtype == "F16" && value == 0) half = 0;
      if (dtype == "F16" && value != 0) {
        const int exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
        half = static_cast<uint16_t>((bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 0x3ff));
      }
      if (dtype != "F32") data.append(reinterpret_cast<const char*>(&half), 2);
    }
    header[name] = testing::TensorEntry(dtype, shape, begin, data.size());
  };
  add("model.embed_tokens.weight", {320, 64});
  add("model.norm.weight", {64});
  for (int i = 0; i < 2; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    add(prefix + "input_layernorm.weight", {64});
    add(prefix + "post_attention_layernorm.weight", {64});
    add(prefix + "self_attn.q_proj.weight", {256, 64});
    add(prefix + "self_attn.k_proj.weight", {128, 64});
    add(prefix + "self_attn.v_proj.weight", {128, 64});
    add(prefix + "self_attn.q_norm.weight", {64});
    add(prefix + "self_attn.k_norm.weight", {64});
    add(prefix + "self_attn.o_proj.weight", {64, 256});
    add(prefix + "mlp.gate_proj.weight", {96, 64});
    add(prefix + "mlp.up_proj.weight", {96, 64});
    add(prefix + "mlp.down_proj.weight", {64, 96});
  }
  testing::WriteFile(folder + "/model.safetensors", testing::SafetensorsBytes(header.dump(), data));
}

absl::StatusOr<ModelWeights> Load(const Backend& cpu, const std::string& folder, DType dtype) {
  SPIN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(folder));
  return LoadWeights(Config(), checkpoint, dtype, *cpu.device, *cpu.ops, NoProgress);
}

TEST_CASE("Float16, bfloat16 and float32 files of the same values load the same") {
  const Backend cpu = Cpu();
  const std::string folder = testing::ScratchFolder("weights_test");
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  WriteModel(folder, "F32", "");
  const auto expected = Load(cpu, folder, dtype);
  REQUIRE(expected.ok());
  for (const char* type : {"F16", "BF16"}) {
    INFO(type);
    WriteModel(folder, type, "");
    const auto loaded = Load(cpu, folder, dtype);
    REQUIRE(loaded.ok());
    CHECK(BytesOf(*loaded) == BytesOf(*expected));
  }
}

TEST_CASE("A tensor that is missing is named") {
  const Backend cpu = Cpu();
  const std::string folder = testing::ScratchFolder("weights_missing_test");
  for (const char* name : {"model.layers.1.self_attn.k_norm.weight", "model.norm.weight",
                           "model.layers.0.mlp.up_proj.weight"}) {
    WriteModel(folder, "BF16", name);
    CHECK_THAT(MessageOf(Load(cpu, folder, DType::kBf16).status()), Catch::Contains(name));
  }
}

}  // namespace
}  // namespace spin
