// A model's weights on the device: every tensor of the forward pass, with its shape. The model is
// this page.
//
// Loaded once; owned by the executor; read-only afterwards.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "models/checkpoint.h"
#include "models/model_config.h"

namespace spin {

// H hidden, I intermediate, d head_dim, Hq and Hkv heads, V vocabulary.
struct LayerWeights {
  const float* input_norm = nullptr;           // [H]
  Weight qkv;                                  // [(Hq + 2 Hkv) d][H]: q, k, v
  const float* q_norm = nullptr;               // [d] (Qwen3), else null
  const float* k_norm = nullptr;               // [d] (Qwen3), else null
  Weight output;                               // [H][Hq d]
  const float* post_attention_norm = nullptr;  // [H]
  Weight gate_up;                              // [2 I][H]: gate, up
  Weight down;                                 // [H][I]
};

struct ModelWeights {
  const void* embedding = nullptr;  // [V][H] of `dtype`, row-major
  DType dtype = DType::kBf16;       // of embedding, linear layers and activations
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [H]
  Weight lm_head;                     // [V][H]
  int64_t bytes = 0;                  // on the device
  std::vector<Buffer> buffers;        // what the pointers point into
};

// Device memory that the linear layers and the embedding take, norms left out.
int64_t WeightBytes(const ModelConfig& config, DType dtype);

// done and total bytes of the checkpoint, now and then; any loader thread, one at a time.
using LoadProgress = absl::FunctionRef<void(int64_t done_bytes, int64_t total_bytes)>;

// Converts to `dtype` (bfloat16 or float32) and to the backend's layout, with several threads.
absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const Checkpoint& checkpoint,
                                         DType dtype, Device& device, Ops& ops,
                                         LoadProgress progress);

// Seeded random weights of the model's shapes, for tests and measurements without a checkpoint.
absl::StatusOr<ModelWeights> MakeDummyWeights(const ModelConfig& config, uint64_t seed, DType dtype,
                                              Device& device, Ops& ops, LoadProgress progress);

}  // namespace spin
