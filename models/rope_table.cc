#include "models/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace spin {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// Long wavelengths are stretched by `factor`, short ones kept, those between blended.
double ScaleLlama3(const RopeConfig& rope, double freq) {
  const double wavelength = kTwoPi / freq;
  const double low = rope.original_max_position / rope.low_freq_factor;
  const double high = rope.original_max_position / rope.high_freq_factor;
  if (wavelength < high) return freq;
  if (wavelength > low) return freq / rope.factor;
  const double blend = (rope.original_max_position / wavelength - rope.low_freq_factor) /
                       (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - blend) * freq / rope.factor + blend * freq;
}

// The (fractional) dimension whose wavelength makes `rotations` turns over the original context.
double YarnDimension(const RopeConfig& rope, int32_t head_dim, double rotations) {
  return head_dim * std::log(rope.original_max_position / (rotations * kTwoPi)) /
         (2 * std::log(rope.theta));
}

void ScaleYarn(const RopeConfig& rope, int32_t head_dim, RopeFrequencies& result) {
  double low = YarnDimension(rope, head_dim, rope.beta_fast);
  double high = YarnDimension(rope, head_dim, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, head_dim - 1.0);
  if (low == high) high += 0.001;
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
    const double freq = result.inv_freq[i];
    result.inv_freq[i] = freq / rope.factor * ramp + freq * (1 - ramp);
  }
  result.attention_factor =
      rope.attention_factor > 0 ? rope.attention_factor : 0.1 * std::log(rope.factor) + 1;
}

}  // namespace

RopeFrequencies ComputeRopeFrequencies(const RopeConfig& rope, int32_t head_dim) {
  RopeFrequencies result;
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    result.inv_freq.push_back(std::pow(rope.theta, -2.0 * i / head_dim));
  }
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (double& freq : result.inv_freq) freq /= rope.factor;
      break;
    case RopeScaling::kLlama3:
      for (double& freq : result.inv_freq) freq = ScaleLlama3(rope, freq);
      break;
    case RopeScaling::kYarn:
      ScaleYarn(rope, head_dim, result);
      break;
  }
  return result;
}

std::vector<float> BuildRopeTable(const RopeConfig& rope, int32_t head_dim, int32_t num_positions) {
  const RopeFrequencies frequencies = ComputeRopeFrequencies(rope, head_dim);
  const int32_t half = head_dim / 2;
  std::vector<float> table(static_cast<std::size_t>(num_positions) * head_dim);
  for (int32_t position = 0; position < num_positions; ++position) {
    float* row = table.data() + static_cast<std::size_t>(position) * head_dim;
    for (int32_t i = 0; i < half; ++i) {
      const double angle = position * frequencies.inv_freq[i];
      row[i] = static_cast<float>(std::cos(angle) * frequencies.attention_factor);
      row[half + i] = static_cast<float>(std::sin(angle) * frequencies.attention_factor);
    }
  }
  return table;
}

}  // namespace spin
