// What shapes a sparse algorithm: the `sparse` section of the configuration, and the model.
#pragma once

#include <cstdint>
#include <string>

namespace spin {

struct SparseOptions {
  std::string algorithm = "dense";
  int32_t budget_tokens = 2048;
  bool exact = false;              // Select returns every partition
  int32_t quest_dense_layers = 0;  // sparse.quest.dense_layers
  std::string seer_gates;          // sparse.seer.gates: a file
};

struct SparseModelShape {
  int32_t num_layers = 0;
  int32_t num_q_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
};

}  // namespace spin
