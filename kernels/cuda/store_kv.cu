#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <limits>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChunksOfThread = 4;

// Moves 16-byte chunks. k and v of a token are one contiguous piece of its row, `1 << head_shift` chunks a head; a CTA
// takes 1,024 chunks in the order of memory and scatters them by head. Floor: every byte read once and written once, for
// 8 heads of 128 in bf16 8 KiB a token (8K tokens: 16 us at 4.18 TB/s); four independent loads a thread reach it.
__global__ void __launch_bounds__(kThreads)
    StoreChunks(const StoreKvParams p, const int chunks_of_token, const int head_shift) {
  const KvGeometry& g = p.geometry;
  const uint32_t total = static_cast<uint32_t>(p.n) * chunks_of_token;
  const uint32_t first = blockIdx.x * (kThreads * kChunksOfThread) + threadIdx.x;
  const int64_t row_bytes = QkvWidth(g) * SizeOf(g.dtype);
  const int64_t keys_at = int64_t{g.num_q_heads} * g.head_dim * SizeOf(g.dtype);
  const StagingView staging(p.staging, g);
  const int64_t staging_tokens = int64_t{p.staging.num_pages} * g.page_tokens;
  WaitForPredecessors();
  AllowSuccessors();

  uint4 value[kChunksOfThread];
  int32_t place[kChunksOfThread];
#pragma unroll
  for (int i = 0; i < kChunksOfThread; ++i) {
    const uint32_t item = first + i * kThreads;
    if (item >= total) continue;
    const uint32_t token = item / chunks_of_token;
    const uint32_t chunk = item % chunks_of_token;
    value[i] = LoadStreaming(static_cast<const char*>(p.qkv) + token * row_bytes + keys_at +
                             int64_t{chunk} * 16);
    place[i] = p.kv_index[token];
  }
#pragma unroll
  for (int i = 0; i < kChunksOfThread; ++i) {
    const uint32_t item = first + i * kThreads;
    if (item >= total) continue;
    SPIN_DEVICE_CHECK(place[i] >= 0 && place[i] < staging_tokens);
    const uint32_t chunk = item % chunks_of_token;
    const int head = static_cast<int>(chunk >> head_shift);
    const int64_t in_head = int64_t{chunk & ((1u << head_shift) - 1)} * 16;
    char* to = head < g.num_kv_heads ? staging.Key(head, place[i])
                                     : staging.Value(head - g.num_kv_heads, place[i]);
    *reinterpret_cast<uint4*>(to + in_head) = value[i];
  }
}

}  // namespace

void StoreKv(const StoreKvParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.geometry;
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  const auto chunks_of_head = static_cast<uint32_t>(g.head_dim * SizeOf(g.dtype) / 16);
  const int chunks_of_token = 2 * g.num_kv_heads * static_cast<int>(chunks_of_head);
  const int64_t total = int64_t{p.n} * chunks_of_token;
  // The last CTA's indices must not wrap either.
  SPIN_CHECK(total <= std::numeric_limits<uint32_t>::max() - kThreads * kChunksOfThread);
  if (total == 0) return;
  const auto grid = static_cast<unsigned>(CeilDiv(total, int64_t{kThreads * kChunksOfThread}));
  Launch(StoreChunks, dim3(grid), dim3(kThreads), 0, stream, p, chunks_of_token,
         std::countr_zero(chunks_of_head));
}

}  // namespace spin::cuda
