#include "models/sparse/dense.h"

namespace spin {

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> DenseAlgorithm::Make(const SparseOptions&,
                                                                      const SparseModelShape&) {
  return std::make_unique<DenseAlgorithm>();
}

}  // namespace spin
