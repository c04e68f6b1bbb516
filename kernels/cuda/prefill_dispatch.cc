#include "kernels/cuda/prefill_dispatch.h"

#include <cstdint>

#include "kernels/cuda/families.h"
#include "kernels/cuda/prefill_pieces.h"

namespace spin::cuda {
namespace {

// Tokens [begin, end) of a tile as a tile of their own. The portable kernel reads token by token what the segments say.
PrefillAttentionParams SubRange(PrefillAttentionParams p, int32_t begin, int32_t end) {
  const KvGeometry& g = p.geometry;
  const int64_t head_bytes = int64_t{g.head_dim} * SizeOf(g.dtype);
  const int64_t qkv_bytes = (int64_t{g.num_q_heads} + 2 * g.num_kv_heads) * head_bytes;
  const int64_t out_bytes = g.num_q_heads * head_bytes;
  p.qkv = static_cast<const char*>(p.qkv) + begin * qkv_bytes;
  p.out = static_cast<char*>(p.out) + begin * out_bytes;
  p.kv_begin += begin;
  p.kv_index += begin;
  p.n = end - begin;
  p.segments = nullptr;
  p.num_segments = 0;
  return p;
}

}  // namespace

void DispatchPrefillAttention(const PrefillAttentionParams& p, CudnnAttention* cudnn,
                              cudaStream_t stream) {
  if (cudnn == nullptr || p.segments == nullptr) {
    PrefillAttentionPortable(p, stream);
    return;
  }
  SplitPrefill(
      p, [&](const PrefillSegment& piece) { return cudnn->Run(p, piece, stream); },
      [&](int32_t begin, int32_t end) {
        PrefillAttentionPortable(end - begin == p.n ? p : SubRange(p, begin, end), stream);
      });
}

}  // namespace spin::cuda
