#include "tests/fuzz/model_files_fuzz.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "common/check.h"
#include "models/model_config.h"
#include "models/rope_table.h"
#include "models/safetensors.h"

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

}  // namespace spin
