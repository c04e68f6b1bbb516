// Cosines and sines of the rotary position embedding, made once at start in double precision.
#pragma once

#include <cstdint>
#include <vector>

#include "models/model_config.h"

namespace spin {

// Inverse frequencies [head_dim / 2] after scaling (llama3: transformers'
// _compute_llama3_parameters; YaRN: arXiv 2309.00071, sections 3.2-3.4), and the factor that
// multiplies cosines and sines (YaRN's "temperature", else 1).
struct RopeFrequencies {
  std::vector<double> inv_freq;
  double attention_factor = 1;
};
RopeFrequencies ComputeRopeFrequencies(const RopeConfig& rope, int32_t head_dim);

// [num_positions][head_dim]: head_dim / 2 cosines, then as many sines.
std::vector<float> BuildRopeTable(const RopeConfig& rope, int32_t head_dim, int32_t num_positions);

}  // namespace spin
