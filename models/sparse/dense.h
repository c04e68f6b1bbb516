// Dense attention as an algorithm: every partition is critical. The baseline, and the oracle of the
// tests.
#pragma once

#include <memory>

#include "common/status.h"
#include "models/sparse/sparse_algorithm.h"
#include "models/sparse/sparse_options.h"

namespace spin {

class DenseAlgorithm final : public SparseAlgorithm {
 public:
  static absl::StatusOr<std::unique_ptr<SparseAlgorithm>> Make(const SparseOptions& options,
                                                               const SparseModelShape& shape);

  int32_t page_tokens() const override { return 64; }
  int32_t summary_elements() const override { return 0; }
  LayerDemand Demand(int32_t) const override { return {.whole_context = true}; }
  const int32_t* IndexPrefill(const PrefillStage&) const override { return nullptr; }
  void IndexDecode(const DecodeStage&) const override {}
  Selection Select(const DecodeStage&) const override { return {}; }
};

}  // namespace spin
