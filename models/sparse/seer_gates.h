// The trained gates of SeerAttention-R for one model: their file, checked against the model, and their weights on the
// device. tools/testbed/README.md, section 6, defines the file (safetensors); params.h (SeerGate) says what is
// computed.
//
// Open reads the header alone, so that memory can be planned before anything is loaded. Owned by the algorithm;
// read-only after Load, any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/params.h"
#include "models/safetensors.h"
#include "models/sparse/sparse_options.h"

namespace spin {

// What a file of gates says of itself.
struct SeerGatesInfo {
  int32_t block_tokens = 0;
  bool use_norm = false;
};

// InvalidArgument, by metadata key or tensor, when these are no gates, or not the model's: all layers, no others, every
// tensor of its shape.
absl::StatusOr<SeerGatesInfo> CheckSeerGates(const std::map<std::string, TensorView>& tensors,
                                             const std::map<std::string, std::string>& metadata,
                                             const SparseModelShape& model);

class SeerGates {
 public:
  static absl::StatusOr<SeerGates> Open(const std::string& path, const SparseModelShape& model);

  int32_t block_tokens() const { return info_.block_tokens; }
  int64_t DeviceBytes(DType dtype) const;

  // Converts to `dtype`, norms to float32, and closes the file. Once.
  absl::Status Load(DType dtype, Device& device);
  // REQUIRES: loaded.
  const SeerGate& layer(int32_t layer) const { return layers_[layer]; }

 private:
  SeerGates(SafetensorsFile file, const SeerGatesInfo& info, const SparseModelShape& model)
      : file_(std::move(file)), info_(info), model_(model) {}
  const TensorView& Tensor(int32_t layer, const char* name) const;

  std::optional<SafetensorsFile> file_;  // until Load
  SeerGatesInfo info_;
  SparseModelShape model_;
  Buffer weights_;
  std::vector<SeerGate> layers_;  // into weights_
};

}  // namespace spin
