// Missing pages cross from the host pool to their slots.
//
// Floor: one launch and its chain of reads (count, list entry, host page) about 7.5 us, then the bytes at the link's
// rate, 51 of the 55 GB/s that the copy engine reaches. To keep the link full 51 GB/s x 2 us = 100 KiB must be in
// flight; the grid has 512 KiB. Pages are whole and at least 2 KiB, so the link carries full 128-byte lines.
#include "common/check.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/flat_work.cuh"
#include "kernels/cuda/key_record.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

// 4 blocks reach 42-51 GB/s and 8 fill the link for every page size; more only take multiprocessors from what runs
// beside the copy.
constexpr int kBlocks = 8;
constexpr int kThreads = 512;
constexpr int kWarps = kBlocks * kThreads / kWarp;
constexpr int kCountsPerThread = 4;  // 2,048 streams in one round: batch 256 of 8 heads

// A piece is what a warp moves at a time: kLoads loads of 16 bytes a lane, all in flight before the first store.
// Smaller pieces than 4 KiB would only ask for more of them, larger ones spread badly when few pages are missing.
template <int kLoads>
constexpr int64_t kPieceBytes = int64_t{kLoads} * 16 * kWarp;

// A piece on its way. Host pages are read with streaming loads, so that they do not displace weights; slots are written
// plainly, since attention reads them next. Not the read-only path: earlier kernels of the stream write host pages too.
template <int kLoads>
struct Piece {
  __device__ __forceinline__ void Load(const char* from) {
#pragma unroll
    for (int q = 0; q < kLoads; ++q) data[q] = LoadStreaming(from + Offset(q));
  }
  __device__ __forceinline__ void Store(char* to) const {
#pragma unroll
    for (int q = 0; q < kLoads; ++q) *reinterpret_cast<uint4*>(to + Offset(q)) = data[q];
  }
  static __device__ int64_t Offset(int q) {
    return int64_t{threadIdx.x % kWarp} * 16 + q * 16 * kWarp;
  }

  uint4 data[kLoads];
};

template <int kLoads>
__device__ __forceinline__ void CopyPiece(char* to, const char* from) {
  Piece<kLoads> piece;
  piece.Load(from);
  piece.Store(to);
}

using Work = FlatWork<kThreads, kCountsPerThread>;

// Calls move(stream, list entry, piece) for `pieces` pieces of each listed copy, a warp each. Called by all threads of
// the grid.
template <typename Move>
__device__ __forceinline__ void ForEachPiece(const GatherPagesParams& p, Work& work, int32_t pieces,
                                             Move move) {
  const int32_t num_heads = p.tables.geometry.num_kv_heads;
  const int32_t streams = p.decode.max_batch * num_heads;
  // Neighbouring pieces go to different blocks: few pages keep all of them busy.
  int32_t unit = static_cast<int32_t>(threadIdx.x / kWarp) * kBlocks + blockIdx.x;
  WaitForPredecessors();

  // The count of a stream is read beside num_rows, not behind it: the array has max_batch places.
  const int32_t in_use = NumRows(p.decode) * num_heads;
  for (int32_t begin = 0; begin < streams; begin += Work::kItems) {
    const int32_t copies = work.Build(min(streams - begin, Work::kItems), [&](int32_t i) {
      const int32_t length = p.copy_len[begin + i];
      const bool used = begin + i < in_use;
      SPIN_DEVICE_CHECK(!used || (length >= 0 && length <= p.max_list));
      return used ? length : 0;
    });
    const int32_t units = copies * pieces;
    for (; unit < units; unit += kWarps) {
      // Successors would take room from other streams while they wait: they are let in with the last round.
      if (unit + kWarps >= units) AllowSuccessors();
      const int32_t copy = unit / pieces;
      const int32_t stream = work.Find(copy);
      move(begin + stream, int64_t{begin + stream} * p.max_list + copy - work.First(stream),
           unit % pieces);
    }
    unit -= units;  // the next round goes on with the warp whose turn it is
  }
}

template <int kLoads>
__global__ void __launch_bounds__(kThreads)
    GatherPagesKernel(const __grid_constant__ GatherPagesParams p) {
  __shared__ Work work;
  const KvTables& t = p.tables;
  const auto pieces = static_cast<int32_t>(t.geometry.page_bytes() / kPieceBytes<kLoads>);
  ForEachPiece(p, work, pieces, [&](int32_t, int64_t entry, int32_t piece) {
    const int64_t offset = piece * kPieceBytes<kLoads>;
    CopyPiece<kLoads>(PageAt(t.slots, t.geometry, p.copy_dst[entry]) + offset,
                      PageAt(t.host_pages, t.geometry, p.copy_src[entry]) + offset);
  });
}

// Where keys are rebuilt: a piece of the values, and where the keys come, too, the same piece of them. Which it is
// turns out while the values are on their way.
template <int kLoads>
__device__ __forceinline__ void CopyPlanes(const GatherPagesParams& p, int32_t stream,
                                           int64_t entry, int64_t offset) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int64_t plane = g.page_bytes() / 2;
  const int32_t slot = p.copy_dst[entry];
  char* to = PageAt(t.slots, g, slot) + offset;
  const char* from = PageAt(t.host_pages, g, p.copy_src[entry]) + offset;
  Piece<kLoads> values;
  values.Load(from + plane);
  const int32_t row = p.decode.rows[stream / g.num_kv_heads];
  const bool rebuilt = RebuildsKeys(t, row, p.layer, stream % g.num_kv_heads, t.slot_owner[slot],
                                    p.decode.position[row], p.list_len[stream], p.whole_last);
  values.Store(to + plane);
  if (!rebuilt) CopyPiece<kLoads>(to, from);
}

template <int kLoads>
__global__ void __launch_bounds__(kThreads)
    GatherPlanesKernel(const __grid_constant__ GatherPagesParams p) {
  __shared__ Work work;
  const int64_t plane_bytes = p.tables.geometry.page_bytes() / 2;
  const auto pieces = static_cast<int32_t>(plane_bytes / kPieceBytes<kLoads>);
  ForEachPiece(p, work, pieces, [&](int32_t stream, int64_t entry, int32_t piece) {
    CopyPlanes<kLoads>(p, stream, entry, piece * kPieceBytes<kLoads>);
  });
}

}  // namespace

void GatherPages(const GatherPagesParams& p, cudaStream_t stream) {
  SPIN_CHECK(p.whole_last >= 0);
  SPIN_CHECK(p.whole_last == 0 || (p.tables.geometry.key_rank > 0 && p.list_len != nullptr));
  if (p.decode.max_batch == 0) return;
  const int64_t page_bytes = p.tables.geometry.page_bytes();
  if (p.whole_last > 0) {
    SPIN_CHECK_EQ(page_bytes % (2 * kPieceBytes<2>), 0);
    Launch(page_bytes % (2 * kPieceBytes<4>) == 0 ? GatherPlanesKernel<4> : GatherPlanesKernel<2>,
           kBlocks, kThreads, 0, stream, p);
    return;
  }
  SPIN_CHECK_EQ(page_bytes % kPieceBytes<4>, 0);  // 8 tokens of 64 bf16 are one
  Launch(page_bytes % kPieceBytes<8> == 0 ? GatherPagesKernel<8> : GatherPagesKernel<4>, kBlocks,
         kThreads, 0, stream, p);
}

}  // namespace spin::cuda
