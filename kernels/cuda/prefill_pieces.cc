#include "kernels/cuda/prefill_pieces.h"

#include <algorithm>
#include <bit>

#include "common/math.h"

namespace spin::cuda {
namespace {

// The largest piece of at most `queries` queries; 0 if that is too few.
int32_t PieceQueries(int32_t queries) {
  if (queries < kPieceMinQueries) return 0;
  const auto largest = static_cast<int32_t>(std::bit_floor(static_cast<uint32_t>(queries)));
  return std::min(largest, kPieceMaxQueries);
}

}  // namespace

void SplitPrefill(const PrefillAttentionParams& p,
                  absl::FunctionRef<bool(const PrefillSegment&)> run_piece,
                  absl::FunctionRef<void(int32_t, int32_t)> run_rest) {
  int32_t done = 0;  // tokens before this one are enqueued
  for (int32_t i = 0; i < p.num_segments; ++i) {
    const PrefillSegment& segment = p.segments[i];
    // Position of the first query in its sequence. Pieces begin on a step and are multiples of it.
    const int32_t position = segment.kv_tokens - segment.num_tokens;
    int32_t at = RoundUp(position, kPieceKeyStep) - position;
    while (const int32_t queries = PieceQueries(segment.num_tokens - at)) {
      const PrefillSegment piece = {.token_begin = segment.token_begin + at,
                                    .num_tokens = queries,
                                    .kv_begin = segment.kv_begin,
                                    .kv_tokens = position + at + queries};
      if (run_piece(piece)) {
        if (done < piece.token_begin) run_rest(done, piece.token_begin);
        done = piece.token_begin + queries;
      }
      at += queries;
    }
  }
  if (done < p.n) run_rest(done, p.n);
}

}  // namespace spin::cuda
