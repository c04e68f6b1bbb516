// Which thread block is the last to finish a share of common work: it may go on with what all of them wrote.
#pragma once

#include <cstdint>

namespace spin::cuda {

// All threads of a block call it when their share is written; `share` of `total` units of work, which together come
// exactly once. True in the block that completes them: it sees what the others wrote (but may not read it through the
// non-coherent path), and the ticket is zero again.
__device__ __forceinline__ bool LastToArrive(uint32_t* ticket, uint32_t share, uint32_t total) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, share) + share == total;
    if (last) *ticket = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace spin::cuda
