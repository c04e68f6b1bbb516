// A variant: one way to choose what a decode step attends to, whose quality is measured against dense attention.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/sparse/sparse_options.h"

namespace spin::eval {

// Who selects.
enum class Selector {
  kAlgorithm,  // the algorithm itself
  kWindow,  // control, the floor: the first page and the last ones, as many as the algorithm may select
  kOracle,  // control, the ceiling: as many pages with the most true attention
};

struct Variant {
  // Of a control: the algorithm whose page size and budget it has. budget_tokens is set, unless whole().
  SparseOptions sparse;
  Selector selector = Selector::kAlgorithm;

  // "quest", "quest exact", "window", "oracle".
  std::string name() const {
    if (selector == Selector::kWindow) return "window";
    if (selector == Selector::kOracle) return "oracle";
    return sparse.exact ? sparse.algorithm + " exact" : sparse.algorithm;
  }
  // "quest 256"; what has no budget is named alone.
  std::string label() const { return whole() ? name() : name() + " " + std::to_string(budget()); }
  // REQUIRES: not whole().
  int32_t budget() const { return sparse.budget_tokens.value(); }
  // The context is attended to as a whole: a budget means nothing.
  bool whole() const { return sparse.exact || sparse.algorithm == "dense"; }
};

// Variants that can share one executor (variant_switch.h). The last one has the largest budget.
using VariantGroup = std::vector<Variant>;

}  // namespace spin::eval
