// Large pinned host memory, quickly: huge pages, touched first by all cores, then registered in one piece.
//
// cudaHostAlloc faults and pins page by page on one thread, about 1.7 GiB/s; this way a pool of 64 GiB takes seconds.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "kernels/device.h"

namespace spin::cuda {

// Memory that device work reads and writes at the same address; 2 MiB aligned, zeroed. ResourceExhausted when the
// system does not give it, or does not let it be pinned.
absl::StatusOr<void*> AllocatePinned(int64_t bytes, AllocationProgress progress);

// REQUIRES: from AllocatePinned with the same size.
void FreePinned(void* data, int64_t bytes) noexcept;

}  // namespace spin::cuda
