// Sparse algorithms by name, and the options that choose and shape one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "models/sparse/sparse_algorithm.h"
#include "models/sparse/sparse_options.h"

namespace spin {

// The algorithm of that name. InvalidArgument: unknown name, or options that it cannot serve.
absl::StatusOr<std::unique_ptr<SparseAlgorithm>> MakeSparseAlgorithm(const SparseOptions& options,
                                                                     const SparseModelShape& shape);

// Every known name, in the registry's order.
std::vector<std::string> SparseAlgorithmNames();

}  // namespace spin
