// Gates of SeerAttention-R: what a file must say, how others are refused, and what comes to the device.
#include "models/sparse/seer_gates.h"

#include <catch2/catch.hpp>

#include "kernels/backend.h"
#include "tests/models/seer_gates_file.h"

namespace spin {
namespace {

using Catch::Contains;
using testing::MakeSeerGates;
using testing::SeerGatesFile;

constexpr SparseModelShape kModel = {
    .num_layers = 2, .num_q_heads = 6, .num_kv_heads = 2, .head_dim = 64};

absl::StatusOr<SeerGates> Open(const std::string& bytes, const SparseModelShape& model = kModel) {
  const std::string path = testing::ScratchFolder("seer_gates_test") + "/gates.safetensors";
  testing::WriteFile(path, bytes);
  return SeerGates::Open(path, model);
}

std::string ErrorOf(const SeerGatesFile& file, const SparseModelShape& model = kModel) {
  const auto gates = Open(file.Bytes(), model);
  if (gates.ok()) return "";
  CHECK(gates.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(MessageOf(gates.status()), Contains("gates.safetensors: "));
  return MessageOf(gates.status());
}

TEST_CASE("gates of the model are taken, with norms and without") {
  for (const int32_t block : {16, 32, 64}) {
    CHECK(Open(MakeSeerGates(kModel, block).Bytes())->block_tokens() == block);
  }
  CHECK(ErrorOf(MakeSeerGates(kModel, 32, false)) == "");
}

TEST_CASE("what the metadata says wrongly is told by its key") {
  const auto with = [](const char* key, const char* value) {
    SeerGatesFile file = MakeSeerGates(kModel);
    file.header["__metadata__"][key] = value;
    return ErrorOf(file);
  };
  CHECK_THAT(with("format", "pt"), Contains("'format' is 'pt'"));
  for (const char* block : {"", "0", "8", "48", "128", "-64", "64x"}) {
    CHECK_THAT(with("block", block), Contains("'block'") && Contains("16, 32 or 64"));
  }
  CHECK_THAT(with("gate_dim", "128"), Contains("'gate_dim' is '128'") && Contains("64"));
  CHECK_THAT(with("use_norm", "yes"), Contains("'use_norm' is 'yes'"));
  SeerGatesFile file = MakeSeerGates(kModel);
  file.header.erase("__metadata__");
  CHECK_THAT(ErrorOf(file), Contains("'format'"));
  file.header["__metadata__"] = {{"format", 1}};
  CHECK_THAT(MessageOf(Open(file.Bytes()).status()), Contains("'format' is no string"));
  file.header["__metadata__"] = 3;
  CHECK_THAT(MessageOf(Open(file.Bytes()).status()), Contains("__metadata__ is no object"));
}

TEST_CASE("tensors that are missing, misshapen or too many are told by name") {
  for (const char* name : {"layers.0.wq", "layers.1.wk", "layers.0.q_norm", "layers.1.k_norm"}) {
    SeerGatesFile file = MakeSeerGates(kModel);
    file.header.erase(name);
    CHECK_THAT(ErrorOf(file), Contains(name) && Contains("missing"));
  }
  SeerGatesFile file = MakeSeerGates(kModel);
  file.header["layers.1.wk"]["shape"] = {2, 64, 192};
  CHECK_THAT(ErrorOf(file),
             Contains("layers.1.wk") && Contains("[2, 64, 192]") && Contains("[2, 192, 64]"));
  SparseModelShape model = kModel;
  model.num_layers = 1;
  CHECK_THAT(ErrorOf(MakeSeerGates(kModel), model), Contains("8 tensors") && Contains("have 4"));
  model.num_layers = 3;
  CHECK_THAT(ErrorOf(MakeSeerGates(kModel), model), Contains("layers.2.wq"));
  model = kModel;
  model.num_q_heads = 8;
  CHECK_THAT(ErrorOf(MakeSeerGates(kModel), model), Contains("layers.0.wq"));
  file = MakeSeerGates(kModel);
  file.header["__metadata__"]["use_norm"] = "false";
  CHECK_THAT(ErrorOf(file), Contains("8 tensors") && Contains("have 4"));
}

// Element i of a bfloat16 tensor of the file.
float FileElement(const SeerGatesFile& file, const std::string& name, int64_t i) {
  const auto begin = file.header[name]["data_offsets"][0].get<int64_t>();
  uint16_t bits;
  std::memcpy(&bits, file.data.data() + begin + 2 * i, 2);
  return Bf16ToFloat(bits);
}

TEST_CASE("weights come to the device with the inputs of an output together") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const SeerGatesFile file = MakeSeerGates(kModel, 64);
  auto backend = CreateBackend({.device = "cpu"});
  REQUIRE(backend.ok());
  auto gates = Open(file.Bytes());
  REQUIRE(gates.ok());
  REQUIRE(gates->Load(dtype, *backend->device).ok());
  const auto element = [&](const void* weights, int64_t i) {
    return dtype == DType::kF32 ? static_cast<const float*>(weights)[i]
                                : Bf16ToFloat(static_cast<const uint16_t*>(weights)[i]);
  };
  int64_t wrong = 0;
  for (int32_t layer = 0; layer < 2; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const SeerGate& gate = gates->layer(layer);
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t out = 0; out < 64; ++out) {
        for (int64_t in = 0; in < 3 * 64; ++in) {  // a group of 3 heads, and 3 pooled vectors
          const int64_t at = (head * 64 + out) * 192 + in, in_file = (head * 192 + in) * 64 + out;
          wrong += element(gate.wq, at) != FileElement(file, prefix + "wq", in_file);
          wrong += element(gate.wk, at) != FileElement(file, prefix + "wk", in_file);
        }
      }
    }
    for (int32_t c = 0; c < 64; ++c) {
      wrong += gate.q_norm[c] != FileElement(file, prefix + "q_norm", c);
      wrong += gate.k_norm[c] != FileElement(file, prefix + "k_norm", c);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("gates without norms have none") {
  auto backend = CreateBackend({.device = "cpu"});
  REQUIRE(backend.ok());
  auto gates = Open(MakeSeerGates(kModel, 16, false).Bytes());
  REQUIRE(gates.ok());
  REQUIRE(gates->Load(DType::kBf16, *backend->device).ok());
  CHECK(gates->layer(1).q_norm == nullptr);
  CHECK(gates->layer(1).k_norm == nullptr);
}

}  // namespace
}  // namespace spin
