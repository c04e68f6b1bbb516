// The tensors of a Hugging Face folder: model.safetensors, or the shards of
// model.safetensors.index.json.
//
// Immutable after Open; any thread may read. Views live as long as the object.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "models/safetensors.h"

namespace spin {

class Checkpoint {
 public:
  // NotFound when the folder has no safetensors, InvalidArgument when files are corrupt or shards
  // are missing.
  static absl::StatusOr<Checkpoint> Open(const std::string& folder);

  // The tensor of that name and shape. NotFound, or InvalidArgument with both shapes.
  absl::StatusOr<TensorView> Find(const std::string& name, const std::vector<int64_t>& shape) const;
  bool Contains(const std::string& name) const;

 private:
  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace spin
