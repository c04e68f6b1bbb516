// The tokens of one query tile and the sequences among them. A tile may hold the end of one sequence, some short
// ones and the begin of another; a run is what the tile has of one of them.
//
// Keys are taken run by run, in blocks counted from the sequence's first key, so that a token's sums have the same
// order whatever shares its tile, however the batch is cut into tiles, wherever its keys are in staging. To the rows
// of other runs a block of keys is exactly nothing: all scores masked, weights 0, rescaling by 1.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/params.h"

namespace spin::cuda {

// In shared memory: the range of keys of each token of the tile, both ends included.
template <int kRows>
struct TileTokens {
  // All threads of the CTA; a barrier must follow.
  __device__ __forceinline__ void Load(const PrefillAttentionParams& p, int64_t token_begin,
                                       int count) {
#pragma unroll 1
    for (int r = static_cast<int>(threadIdx.x); r < count; r += static_cast<int>(blockDim.x)) {
      first_key[r] = p.kv_begin[token_begin + r];
      last_key[r] = p.kv_index[token_begin + r];
    }
  }

  int32_t first_key[kRows];
  int32_t last_key[kRows];
};

struct Run {
  int begin = 0, end = 0;  // rows of the tile
  int32_t first_key = 0;
  int32_t last_key = 0;  // the last that any of its rows sees
};

// The run that begins at row `begin` of `count`. All lanes of a warp; the same in every warp.
template <int kRows>
__device__ __forceinline__ Run FindRun(const TileTokens<kRows>& tokens, int begin, int count) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Run run = {.begin = begin, .end = count, .first_key = tokens.first_key[begin], .last_key = 0};
#pragma unroll 1
  for (int r = begin + lane; r < count; r += kWarp) {
    if (tokens.first_key[r] != run.first_key) {
      run.end = r;
      break;
    }
  }
  run.end = __reduce_min_sync(kAllLanes, run.end);
  run.last_key = run.first_key;
#pragma unroll 1
  for (int r = begin + lane; r < run.end; r += kWarp) {
    run.last_key = max(run.last_key, tokens.last_key[r]);
  }
  run.last_key = __reduce_max_sync(kAllLanes, run.last_key);
  return run;
}

// The last key that row `row` of the tile sees, counted from the run's first; -1 where it belongs to another run.
template <int kRows>
__device__ __forceinline__ int32_t LastKeyInRun(const TileTokens<kRows>& tokens, const Run& run,
                                                int row) {
  return row >= run.begin && row < run.end ? tokens.last_key[row] - run.first_key : -1;
}

}  // namespace spin::cuda
