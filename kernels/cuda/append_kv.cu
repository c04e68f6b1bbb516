// The new token's key and value: into the slot of its page, and through to the host page of a Tiered row, so that no
// evicted page is ever dirty.
//
// A few KiB a layer (64 rows of 8 heads: 256 KiB), so time is latency: a chain of dependent table reads, 4 for a
// Resident row (count and row; position and placement; directory; store) and 6 for a Tiered one (meta entry, slot
// directory). What does not depend on the chain, key and value themselves, is in flight meanwhile. Floor about 2 us.
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 4;  // a block; small, so that a big batch spreads over the machine
constexpr int kChunk = 16;

// One warp a (place, head): its key and value are 2 * head_dim elements, kPerLane chunks of 16 bytes a lane.
template <int kPerLane>
__global__ void __launch_bounds__(kWarps* kWarp)
    AppendKvKernel(const __grid_constant__ AppendKvParams p) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int32_t stream = static_cast<int32_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int32_t place = stream / g.num_kv_heads, head = stream % g.num_kv_heads;
  const int32_t half = g.head_dim * static_cast<int32_t>(SizeOf(g.dtype));  // bytes of a key
  WaitForPredecessors();
  AllowSuccessors();
  if (place >= p.decode.max_batch) return;

  const int32_t row = p.decode.rows[place];  // means something if the place is in use
  const int32_t num_rows = NumRows(p.decode);
  const char* qkv =
      static_cast<const char*>(p.qkv) +
      (place * QkvWidth(g) + int64_t{g.num_q_heads + head} * g.head_dim) * SizeOf(g.dtype);
  uint4 data[kPerLane] = {};
  int64_t to[kPerLane];  // byte of the page, counted from the token's key
#pragma unroll
  for (int q = 0; q < kPerLane; ++q) {
    const int32_t byte = (static_cast<int32_t>(threadIdx.x % kWarp) + q * kWarp) * kChunk;
    const bool value = byte >= half;
    const int64_t from = value ? int64_t{g.num_kv_heads - 1} * half + byte : byte;
    to[q] = value ? g.ValueOffset(0) * SizeOf(g.dtype) + byte - half : byte;
    if (byte < 2 * half) data[q] = *reinterpret_cast<const uint4*>(qkv + from);
  }
  if (place >= num_rows) return;

  const int32_t position = p.decode.position[row];
  const int32_t page = position / g.page_tokens;
  const int64_t token = int64_t{position % g.page_tokens} * half;
  const StreamView view(t, row, p.layer, head);
  const auto write = [&](char* at) {
#pragma unroll
    for (int q = 0; q < kPerLane; ++q) {
      if ((static_cast<int32_t>(threadIdx.x % kWarp) + q * kWarp) * kChunk < 2 * half) {
        *reinterpret_cast<uint4*>(at + token + to[q]) = data[q];
      }
    }
  };
  // The host first: its address needs no meta entry, and the posted write travels while that is read.
  if (view.tiered()) write(PageAt(t.host_pages, g, view.HostPage(page)));
  write(PageAt(t.slots, g, view.SlotOfPage(page)));
}

}  // namespace

void AppendKv(const AppendKvParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t streams = p.decode.max_batch * g.num_kv_heads;
  if (streams == 0) return;
  const int64_t bytes = 2 * int64_t{g.head_dim} * SizeOf(g.dtype);
  SPIN_CHECK(bytes % (2 * kChunk) == 0 && bytes <= 2 * kChunk * kWarp);
  Launch(bytes <= kChunk * kWarp ? AppendKvKernel<1> : AppendKvKernel<2>,
         (streams + kWarps - 1) / kWarps, kWarps * kWarp, 0, stream, p);
}

}  // namespace spin::cuda
