// The kernels that `spin_bench micro` measures.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/thread_pool.h"

namespace spin::bench {

// One row: `call(i)` runs the kernel once, on copy i of its cold data.
struct MicroRow {
  std::string name;
  double bytes = 0;  // that must come from memory, a call
  double flops = 0;  // a call
  std::function<void(int64_t i)> call;
};

// Rows whose name contains `filter`; each owns its data, made when the row is taken.
struct MicroRowMaker {
  std::string name;
  std::function<MicroRow(ThreadPool&)> make;
};
std::vector<MicroRowMaker> MicroRows();

}  // namespace spin::bench
