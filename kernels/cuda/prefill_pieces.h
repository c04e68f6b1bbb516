// How a tile of prefill is split between a library's attention, which is fast but takes a few shapes only, and the
// portable kernel, which takes everything. Plain arithmetic: no CUDA.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>

#include "kernels/params.h"

namespace spin::cuda {

// A piece is a run of a segment's queries that the library takes. Its number of queries is a power of two within
// these bounds, so that a handful of plans serves every tile and no plan is larger than its work. Its last key is the
// last of a step (counted from the sequence's begin), so that no block of keys is partly outside the sequence: what
// lies there may be NaN, and a library that masks a score still multiplies the value by zero.
inline constexpr int32_t kPieceMinQueries = 512;  // fewer are not worth a launch of their own
inline constexpr int32_t kPieceMaxQueries = 16384;
inline constexpr int32_t kPieceKeyStep = 256;  // a multiple of the library's block of keys

// Calls run_piece(piece) for the pieces of p.segments in order, and run_rest(begin, end) for the runs of tokens
// between them: what no piece covers, and pieces for which run_piece said false. Both cover 0 .. p.n exactly once.
void SplitPrefill(const PrefillAttentionParams& p,
                  absl::FunctionRef<bool(const PrefillSegment&)> run_piece,
                  absl::FunctionRef<void(int32_t, int32_t)> run_rest);

}  // namespace spin::cuda
