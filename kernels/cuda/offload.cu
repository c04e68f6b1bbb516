// The end of a layer's prefill: the tokens in staging leave for where the rows' placement says.
//
// It runs on a stream of its own beside the next layer's GEMMs, so the grids are bounded: being quick matters less than
// staying out of the way. A layer of 32K tokens is 134 MB each way (8 heads of 128 in bf16): 64 us of HBM time, 2.6 ms
// on the link, while the next layer computes for some 30 ms.
#include <bit>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/flat_work.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

// Posted writes need no bytes in flight to hide latency, only the reads that feed them: 52 GB/s x 1 us = 52 KiB, and
// these blocks have 256 KiB. More would only fill the way to the link, where everybody's host accesses queue.
constexpr int kHostBlocks = 8;
// 2 MiB of loads in flight, what HBM needs at full rate, on half of the multiprocessors.
constexpr int kSlotBlocks = 64;
constexpr int kCopyThreads = 512;
constexpr int kCopyWarps = kCopyThreads / kWarp;  // a block
constexpr int kLoads = 4;                         // in flight a lane
constexpr int kTableThreads = 256;

// What an offload needs to know of one slice.
struct SliceView {
  __device__ SliceView(const OffloadParams& p, int32_t s)
      : slice(p.slices[s]), tokens(slice.prefix_tokens + slice.num_tokens) {
    const KvTables& t = p.tables;
    pages = CeilDiv(tokens, t.geometry.page_tokens);
    SPIN_DEVICE_CHECK(slice.page_begin >= 0 && slice.page_begin + pages <= p.staging.num_pages);
    const StreamView view(t, slice.row, p.layer, 0);  // heads do not differ in what is read here
    tiered = view.tiered();
    resident = tiered ? min(pages, view.num_slots()) : pages;
  }

  PrefillSlice slice;
  int32_t tokens;
  int32_t pages;     // a head
  int32_t resident;  // of them in slots: the last ones, in local slots 0..
  bool tiered;
};

// One block a (slice, head): the last pages of a Tiered stream become resident in its local slots 0.., and nothing
// else. A few KiB a stream: latency, about 5 us.
__global__ void __launch_bounds__(kTableThreads, 1)
    BindLastPages(const __grid_constant__ OffloadParams p) {
  const KvTables& t = p.tables;
  const int32_t s = static_cast<int32_t>(blockIdx.x) / t.geometry.num_kv_heads;
  const int32_t head = static_cast<int32_t>(blockIdx.x) % t.geometry.num_kv_heads;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  WaitForPredecessors();
  AllowSuccessors();
  const SliceView slice(p, s);
  if (!slice.tiered) return;
  const StreamView view(t, slice.slice.row, p.layer, head);
  const int32_t first = slice.pages - slice.resident;  // page in local slot 0
  // What slots held before is gone, wherever in the sequence it was.
  for (int32_t j = thread; j < view.num_slots(); j += kTableThreads) {
    const int32_t owner = t.slot_owner[view.Slot(j)];
    if (owner != kAbsent) t.meta[view.Meta(owner)] = kAbsent;
  }
  for (int32_t page = thread; page < first; page += kTableThreads) {
    t.meta[view.Meta(page)] = kAbsent;
  }
  __syncthreads();  // an entry that is cleared above may be set below
  for (int32_t j = thread; j < view.num_slots(); j += kTableThreads) {
    const int64_t slot = view.Slot(j);
    t.slot_owner[slot] = j < slice.resident ? first + j : kAbsent;
    t.slot_age[slot] = 0;
    if (j < slice.resident) t.meta[view.Meta(first + j)] = j;
  }
}

__device__ __forceinline__ int Log2(int64_t power_of_two) {
  return __ffsll(power_of_two) - 1;
}

// Where the valid tokens of a page are in staging. Without an order they are contiguous in each plane; with one, each
// is where the order says.
template <bool kOrdered>
class PageTokens {
 public:
  // `order` of the page's first token.
  __device__ PageTokens(const StagingView& staging, int32_t head, int64_t token,
                        const int32_t* order)
      : keys_(staging.Key(head, kOrdered ? 0 : token)),
        plane_bytes_(staging.plane_bytes),
        order_(order),
        token_shift_(Log2(staging.token_bytes)) {}

  // 16 bytes at offset `at` of the page's plane of keys or values.
  __device__ __forceinline__ uint4 Load(int32_t at, bool value) const {
    const char* from = keys_ + (value ? plane_bytes_ : 0);
    if constexpr (kOrdered) {
      const int32_t in_token = at & ((1 << token_shift_) - 1);
      return LoadStreaming(from + (int64_t{order_[at >> token_shift_]} << token_shift_) + in_token);
    } else {
      return LoadStreaming(from + at);
    }
  }

 private:
  const char* keys_;
  int64_t plane_bytes_;
  const int32_t* order_;
  int token_shift_;
};

// One warp moves the valid tokens of a page. What lies behind them in staging is garbage, what lies behind them in the
// page stays.
template <bool kOrdered>
__device__ __forceinline__ void CopyPage(char* page, const PageTokens<kOrdered>& tokens,
                                         const KvGeometry& g, int32_t half) {
  char* page_values = page + g.ValueOffset(0) * SizeOf(g.dtype);
  const int32_t lane = static_cast<int32_t>(threadIdx.x % kWarp) * 16;
  for (int32_t begin = lane; begin < 2 * half; begin += kLoads * 16 * kWarp) {
    uint4 data[kLoads];
#pragma unroll
    for (int q = 0; q < kLoads; ++q) {
      const int32_t at = begin + q * 16 * kWarp;
      if (at < 2 * half) data[q] = tokens.Load(at < half ? at : at - half, at >= half);
    }
#pragma unroll
    for (int q = 0; q < kLoads; ++q) {
      const int32_t at = begin + q * 16 * kWarp;
      if (at < 2 * half) StoreStreaming(at < half ? page + at : page_values + (at - half), data[q]);
    }
  }
}

// The first kHostBlocks blocks write host pages, all of a Tiered row's; the others write slots. Which pages get slots
// follows from counts alone, so nothing here reads what BindLastPages writes.
template <bool kOrdered>
__global__ void __launch_bounds__(kCopyThreads) CopyPages(const __grid_constant__ OffloadParams p) {
  using Work = FlatWork<kCopyThreads, 1>;
  __shared__ Work work;
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const bool to_host = blockIdx.x < kHostBlocks;
  const int32_t block = static_cast<int32_t>(blockIdx.x) - (to_host ? 0 : kHostBlocks);
  const int32_t blocks = to_host ? kHostBlocks : kSlotBlocks;
  int32_t unit = static_cast<int32_t>(threadIdx.x / kWarp) * blocks + block;
  const StagingView staging(p.staging, g);
  WaitForPredecessors();

  for (int32_t begin = 0; begin < p.num_slices; begin += Work::kItems) {
    const int32_t units = work.Build(min(p.num_slices - begin, Work::kItems), [&](int32_t i) {
      const SliceView slice(p, begin + i);
      return g.num_kv_heads * (!to_host ? slice.resident : slice.tiered ? slice.pages : 0);
    });
    for (; unit < units; unit += blocks * kCopyWarps) {
      const int32_t item = work.Find(unit);
      const SliceView slice(p, begin + item);
      const int32_t per_head = to_host ? slice.pages : slice.resident;
      const int32_t head = (unit - work.First(item)) / per_head;
      const int32_t i = (unit - work.First(item)) % per_head;  // host page or local slot
      const int32_t page = slice.pages - per_head + i;
      const StreamView view(t, slice.slice.row, p.layer, head);
      char* to =
          to_host ? PageAt(t.host_pages, g, view.HostPage(i)) : PageAt(t.slots, g, view.Slot(i));
      const int64_t token = int64_t{slice.slice.page_begin + page} * g.page_tokens;
      const int64_t places = int64_t{p.staging.num_pages} * g.page_tokens;  // of a head
      const PageTokens<kOrdered> tokens(staging, head, token,
                                        kOrdered ? p.order + head * places + token : nullptr);
      // Bytes of a plane.
      const int32_t half = min(g.page_tokens, slice.tokens - page * g.page_tokens) *
                           static_cast<int32_t>(staging.token_bytes);
      CopyPage(to, tokens, g, half);
    }
    unit -= units;  // the next round goes on with the warp whose turn it is
  }
}

}  // namespace

void Offload(const OffloadParams& p, cudaStream_t stream) {
  if (p.num_slices == 0) return;
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.head_dim * SizeOf(g.dtype) % 16, 0);
  Launch(BindLastPages, p.num_slices * g.num_kv_heads, kTableThreads, 0, stream, p);
  const auto copy = p.order == nullptr ? CopyPages<false> : CopyPages<true>;
  SPIN_CHECK(p.order == nullptr || std::has_single_bit(static_cast<uint32_t>(g.head_dim)));
  Launch(copy, kHostBlocks + kSlotBlocks, kCopyThreads, 0, stream, p);
}

}  // namespace spin::cuda
