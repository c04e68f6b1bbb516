// Bodies shared by the libFuzzer entries (safetensors_fuzz.cc, model_config_fuzz.cc) and the smoke
// test (model_files_fuzz_test.cc). Each returns whether the file was taken and aborts when a
// promise of the parser's header does not hold.
#pragma once

#include <string_view>

#include "models/sparse/sparse_options.h"

namespace spin {

bool FuzzSafetensors(std::string_view data);
bool FuzzModelConfig(std::string_view data);
bool FuzzSeerGates(std::string_view data);  // of a model with the shape below

inline constexpr SparseModelShape kFuzzGatesModel = {
    .num_layers = 1, .num_q_heads = 1, .num_kv_heads = 1, .head_dim = 16};

}  // namespace spin
