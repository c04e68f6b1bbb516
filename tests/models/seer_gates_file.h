// Gates of SeerAttention-R for tests: random weights in a file as training writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/random.h"
#include "kernels/dtype.h"
#include "models/sparse/sparse_options.h"
#include "tests/models/checkpoint_files.h"

namespace spin::testing {

// Header and data of such a file, for tests to change before they write it.
struct SeerGatesFile {
  nlohmann::json header;
  std::string data;
  std::string Bytes() const { return SafetensorsBytes(header.dump(), data); }
};

// Weights of the size of training's start, in bfloat16; norms around 1.
inline SeerGatesFile MakeSeerGates(const SparseModelShape& model, int32_t block = 16,
                                   bool use_norm = true, uint64_t seed = 1) {
  SeerGatesFile file;
  file.header["__metadata__"] = {{"format", "seer_attention_gates"},
                                 {"block", std::to_string(block)},
                                 {"gate_dim", std::to_string(model.head_dim)},
                                 {"use_norm", use_norm ? "true" : "false"}};
  Random random(seed);
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, float center,
                       float spread) {
    const uint64_t begin = file.data.size();
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t bits = FloatToBf16(center + spread * (2 * random.Uniform() - 1));
      file.data.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
    file.header[name] = TensorEntry("BF16", shape, begin, file.data.size());
  };
  const int64_t heads = model.num_kv_heads, d = model.head_dim;
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    add(prefix + "wq", {heads, model.num_q_heads / heads, d, d}, 0, 0.1f);
    add(prefix + "wk", {heads, 3 * d, d}, 0, 0.1f);
    if (!use_norm) continue;
    add(prefix + "q_norm", {d}, 1, 0.2f);
    add(prefix + "k_norm", {d}, 1, 0.2f);
  }
  return file;
}

}  // namespace spin::testing
