// The end of a layer's prefill: staging becomes pages where the rows' placement says.
//
// Two kernels. The first binds the last pages of Tiered streams to their slots (tables only, a block a stream). The
// second moves tokens: staging is read, slots and host pages are written, whole 16-byte pieces, only valid tokens. It
// runs beside the next layer's products, so its grid is small: kCopyBlocks blocks are enough to fill the link with
// posted writes (52 GB/s) and to move Resident pages at some 1 TB/s, a few percent of a layer's time, while most
// multiprocessors never see it.
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCopyBlocks = 32;
constexpr int kWarps = kCopyBlocks * kThreads / kWarp;

__device__ __forceinline__ int32_t PagesOf(const PrefillSlice& slice, const KvGeometry& g) {
  return (slice.prefix_tokens + slice.num_tokens + g.page_tokens - 1) / g.page_tokens;
}

// Makes the last pages of a Tiered stream resident in its local slots 0.., and nothing else. Three steps that must not
// overtake each other: entries of the old owners go, entries of pages that are not resident go, the new ones come.
__global__ void __launch_bounds__(kThreads) BindLastPages(const __grid_constant__ OffloadParams p) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  WaitForPredecessors();
  AllowSuccessors();
  const PrefillSlice slice = p.slices[blockIdx.y];
  const StreamView stream(t, slice.row, p.layer, static_cast<int32_t>(blockIdx.x));
  if (!stream.tiered()) return;
  const int32_t pages = PagesOf(slice, g);
  const int32_t num_slots = stream.num_slots();
  const int32_t resident = min(pages, num_slots);
  for (int32_t j = threadIdx.x; j < num_slots; j += kThreads) {
    const int32_t owner = t.slot_owner[stream.Slot(j)];
    if (owner != kAbsent) t.meta[stream.Meta(owner)] = kAbsent;
  }
  for (int32_t page = threadIdx.x; page < pages - resident; page += kThreads) {
    t.meta[stream.Meta(page)] = kAbsent;
  }
  __syncthreads();
  for (int32_t j = threadIdx.x; j < num_slots; j += kThreads) {
    const int64_t slot = stream.Slot(j);
    t.slot_owner[slot] = j < resident ? pages - resident + j : kAbsent;
    t.slot_age[slot] = 0;
    if (j < resident) t.meta[stream.Meta(pages - resident + j)] = j;
  }
}

// Bytes [0, bytes) of one plane of a page, by a warp: kLoads pieces of 16 bytes a lane in flight.
__device__ __forceinline__ void CopyPlane(char* slot, char* host, const char* from, int32_t bytes) {
  constexpr int kLoads = 4;
  const int32_t lane = static_cast<int32_t>(threadIdx.x % kWarp) * 16;
  for (int32_t at = lane; at < bytes; at += kLoads * kWarp * 16) {
    uint4 data[kLoads];
#pragma unroll
    for (int q = 0; q < kLoads; ++q) {
      const int32_t i = at + q * kWarp * 16;
      if (i < bytes) data[q] = LoadStreaming(from + i);
    }
#pragma unroll
    for (int q = 0; q < kLoads; ++q) {
      const int32_t i = at + q * kWarp * 16;
      if (i >= bytes) break;
      if (host != nullptr) *reinterpret_cast<uint4*>(host + i) = data[q];
      if (slot != nullptr) *reinterpret_cast<uint4*>(slot + i) = data[q];
    }
  }
}

// A warp a (page, head) of each slice; the heads of a page follow each other.
__global__ void __launch_bounds__(kThreads) CopyPages(const __grid_constant__ OffloadParams p) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const StagingView staging(p.staging, g);
  const int64_t plane_bytes = g.plane_elements() * SizeOf(g.dtype);
  WaitForPredecessors();
  AllowSuccessors();
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice slice = p.slices[s];
    const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
    const int32_t items = PagesOf(slice, g) * g.num_kv_heads;
    SPIN_DEVICE_CHECK(slice.page_begin >= 0 &&
                      slice.page_begin + PagesOf(slice, g) <= p.staging.num_pages);
    for (int32_t i = blockIdx.x + static_cast<int32_t>(threadIdx.x / kWarp) * kCopyBlocks;
         i < items; i += kWarps) {
      const int32_t page = i / g.num_kv_heads;
      const int32_t head = i % g.num_kv_heads;
      const StreamView stream(t, slice.row, p.layer, head);
      char* host = nullptr;
      char* slot = nullptr;
      if (stream.tiered()) {
        host = PageAt(t.host_pages, g, stream.HostPage(page));
        const int32_t local = t.meta[stream.Meta(page)];
        if (local != kAbsent) slot = PageAt(t.slots, g, stream.Slot(local));
      } else {
        slot = PageAt(t.slots, g, stream.Slot(page));
      }
      const int32_t valid = min(g.page_tokens, tokens - page * g.page_tokens);
      const auto bytes = static_cast<int32_t>(valid * staging.token_bytes);
      const int64_t first = int64_t{slice.page_begin + page} * g.page_tokens;
      CopyPlane(slot, host, staging.Key(head, first), bytes);
      CopyPlane(slot == nullptr ? nullptr : slot + plane_bytes,
                host == nullptr ? nullptr : host + plane_bytes, staging.Value(head, first), bytes);
    }
  }
}

}  // namespace

void Offload(const OffloadParams& p, cudaStream_t stream) {
  if (p.num_slices == 0) return;
  const KvGeometry& g = p.tables.geometry;
  Launch(BindLastPages,
         dim3(static_cast<unsigned>(g.num_kv_heads), static_cast<unsigned>(p.num_slices)), kThreads,
         0, stream, p);
  Launch(CopyPages, kCopyBlocks, kThreads, 0, stream, p);
}

}  // namespace spin::cuda
