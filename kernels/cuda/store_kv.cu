// Keys and values of a tile into staging: a plane of keys and one of values a head.
//
// Floor: both read and written once, 4 bytes an element in bf16. A warp a (token, head, key or value) would be tiny, so
// a thread moves 16 bytes: neighbours have neighbouring pieces of one fused row.
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) StoreKvKernel(const __grid_constant__ StoreKvParams p) {
  const KvGeometry& g = p.geometry;
  const int32_t head_pieces = g.head_dim * static_cast<int32_t>(SizeOf(g.dtype)) / 16;
  const int32_t row_pieces = 2 * g.num_kv_heads * head_pieces;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  WaitForPredecessors();
  AllowSuccessors();
  if (item >= int64_t{p.n} * row_pieces) return;
  const int64_t token = item / row_pieces;
  const auto in_row = static_cast<int32_t>(item % row_pieces);
  const int32_t head = in_row / head_pieces;  // keys of all heads, then values
  const int32_t piece = in_row % head_pieces;
  const char* from = static_cast<const char*>(p.qkv) +
                     (token * QkvWidth(g) + int64_t{g.num_q_heads} * g.head_dim) * SizeOf(g.dtype) +
                     int64_t{in_row} * 16;
  const StagingView staging(p.staging, g);
  const int32_t at = p.kv_index[token];
  char* to =
      head < g.num_kv_heads ? staging.Key(head, at) : staging.Value(head - g.num_kv_heads, at);
  *reinterpret_cast<uint4*>(to + piece * 16) = LoadStreaming(from);
}

}  // namespace

void StoreKv(const StoreKvParams& p, cudaStream_t stream) {
  const int64_t pieces = int64_t{p.n} * 2 * p.geometry.num_kv_heads * p.geometry.head_dim *
                         SizeOf(p.geometry.dtype) / 16;
  if (pieces == 0) return;
  Launch(StoreKvKernel, static_cast<unsigned>((pieces + kThreads - 1) / kThreads), kThreads, 0,
         stream, p);
}

}  // namespace spin::cuda
