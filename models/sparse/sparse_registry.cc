#include "models/sparse/sparse_registry.h"

#include <array>
#include <string_view>
#include <utility>

#include "models/sparse/dense.h"
#include "models/sparse/exact.h"
#include "models/sparse/quest.h"
#include "models/sparse/retroinfer.h"
#include "models/sparse/seer.h"
#include "models/sparse/shadowkv.h"

namespace spin {
namespace {

using Factory = absl::StatusOr<std::unique_ptr<SparseAlgorithm>> (*)(const SparseOptions&,
                                                                     const SparseModelShape&);

struct Entry {
  std::string_view name;
  Factory make;
};

// The algorithms that the server knows: one line each.
constexpr std::array<Entry, 5> kAlgorithms = {{
    {"dense", &DenseAlgorithm::Make},
    {"quest", &QuestAlgorithm::Make},
    {"shadowkv", &ShadowKvAlgorithm::Make},
    {"seer", &SeerAlgorithm::Make},
    {"retroinfer", &RetroInferAlgorithm::Make},
}};

}  // namespace

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> MakeSparseAlgorithm(
    const SparseOptions& options, const SparseModelShape& shape) {
  for (const Entry& entry : kAlgorithms) {
    if (options.algorithm != entry.name) continue;
    SPIN_ASSIGN_OR_RETURN(std::unique_ptr<SparseAlgorithm> algorithm, entry.make(options, shape));
    if (options.exact) algorithm = std::make_unique<ExactAlgorithm>(std::move(algorithm));
    return algorithm;
  }
  std::string names;
  for (const std::string& name : SparseAlgorithmNames())
    names += (names.empty() ? "" : ", ") + name;
  return InvalidArgument("sparse.algorithm: '%s' is unknown; known: %s", options.algorithm, names);
}

std::vector<std::string> SparseAlgorithmNames() {
  std::vector<std::string> names;
  for (const Entry& entry : kAlgorithms) names.emplace_back(entry.name);
  return names;
}

}  // namespace spin
