// spin_bench micro: the time of each CPU kernel beside its floor.
//
// First the ceilings of this run: read bandwidth over data larger than every cache, and the rate of
// the dot product that GEMM is made of. Then one row a kernel at the sizes of a 135M-parameter
// model: median time, bytes and operations a second, floor = the greater of bytes / bandwidth and
// operations / rate, and floor / time. Weights and KV are cold: each call takes another copy of a
// set that is larger than the last-level cache.
#pragma once

#include <span>
#include <string>

namespace spin::bench {

// Arguments: --threads=N, --filter=TEXT (rows whose name contains it), --isa=NAME. Returns the exit
// status.
int RunMicro(std::span<const std::string> args);

}  // namespace spin::bench
