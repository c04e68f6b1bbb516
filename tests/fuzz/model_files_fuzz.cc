#include "tests/fuzz/model_files_fuzz.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "common/check.h"
#include "models/model_config.h"
#include "models/rope_table.h"
#include "models/safetensors.h"
#include "models/sparse/seer_gates.h"

namespace spin {

bool FuzzSafetensors(std::string_view data) {
  const auto parsed = ParseSafetensors(std::as_bytes(std::span<const char>(data)));
  if (!parsed.ok()) {
    SPIN_CHECK(!MessageOf(parsed.status()).empty());
    return false;
  }
  const auto* begin = reinterpret_cast<const std::byte*>(data.data());
  for (const auto& [name, view] : *parsed) {
    int64_t bytes = SizeOf(view.dtype);
    for (const int64_t n : view.shape) bytes *= n;
    SPIN_CHECK_EQ(bytes, static_cast<int64_t>(view.bytes.size()));
    SPIN_CHECK(view.bytes.data() >= begin);
    SPIN_CHECK(view.bytes.data() + view.bytes.size() <= begin + data.size());
  }
  return true;
}

bool FuzzModelConfig(std::string_view data) {
  const auto parsed = ParseModelConfig(data);
  if (!parsed.ok()) {
    SPIN_CHECK(!MessageOf(parsed.status()).empty());
    return false;
  }
  SPIN_CHECK_GE(parsed->num_parameters(), 1);
  SPIN_CHECK_EQ(parsed->num_q_heads % parsed->num_kv_heads, 0);
  SPIN_CHECK(parsed->head_dim == 64 || parsed->head_dim == 128);
  for (const double freq : ComputeRopeFrequencies(parsed->rope, parsed->head_dim).inv_freq) {
    SPIN_CHECK(std::isfinite(freq));
  }
  return true;
}

bool FuzzSeerGates(std::string_view data) {
  const auto bytes = std::as_bytes(std::span<const char>(data));
  const auto tensors = ParseSafetensors(bytes);
  const auto metadata = ParseSafetensorsMetadata(bytes);
  if (!tensors.ok() || !metadata.ok()) return false;
  const auto info = CheckSeerGates(*tensors, *metadata, kFuzzGatesModel);
  if (!info.ok()) {
    SPIN_CHECK(!MessageOf(info.status()).empty());
    return false;
  }
  // What Load relies on.
  SPIN_CHECK(info->block_tokens == 16 || info->block_tokens == 32 || info->block_tokens == 64);
  const auto elements = [&](const char* name) {
    const TensorView& view = tensors->at(name);
    return static_cast<int64_t>(view.bytes.size()) / SizeOf(view.dtype);
  };
  SPIN_CHECK_EQ(elements("layers.0.wq"), 16 * 16);
  SPIN_CHECK_EQ(elements("layers.0.wk"), 3 * 16 * 16);
  if (info->use_norm) SPIN_CHECK_EQ(elements("layers.0.q_norm") + elements("layers.0.k_norm"), 32);
  return true;
}

}  // namespace spin
