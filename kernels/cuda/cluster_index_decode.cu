// RetroInfer's Index of a decode step: one step in 512 of a sequence an extent falls 64 tokens behind and is clustered,
// in the pages where it is.
//
// A CTA an extent of a KV head. Its tokens go to scratch first, since their places will hold others; what follows reads
// them from there, out of L2.
#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/cluster_assign.cuh"
#include "kernels/cuda/cluster_sort.cuh"
#include "kernels/cuda/cluster_sums.cuh"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;  // with up to 255 registers a thread
constexpr int kThreads = kWarps * kWarp;
constexpr int kClusters = kExtentTokens / kClusterTokens;
constexpr int kPages = kExtentTokens / kClusterPageTokens;
constexpr int kWorkers = 8;  // rows of a step that are clustered at the same time, if so many are
constexpr int kTiles = kExtentTokens / kTileTokens / kWarps;  // of a warp
constexpr int kRowsAhead = 12;                                // of a cluster
static_assert(kClusters == kBlockClusters);

template <typename T, int kDim>
struct Shared {
  alignas(16) char centroids[CentroidBlock<T, kDim>::kBytes];
  float sums[kMeanFloats<T, kThreads>];
  float mean[kDim];
  ClusterSort<kWarps, kTiles, kClusters> sort;
  int32_t token[kExtentTokens];  // of the extent, at each place
  ClusterRun runs[kClusters];    // places of the extent
  const char* from[kPages];      // where a page is read
  char* slot[kPages];            // where it is written: null if it is not resident
  char* host[kPages];            // null in a Resident row
  T* records;                    // of the extent's clusters
};

// The extent that the row's new token lets index, if it does: the first token, else -1.
__device__ __forceinline__ int32_t ExtentToIndex(const DecodeRows& decode, int32_t place) {
  const int64_t position = decode.position[decode.rows[place]];
  const int64_t first = IndexedTokens(position);
  return IndexedTokens(position + 1) > first ? static_cast<int32_t>(first) : -1;
}

// One extent of one stream. Whole block.
template <typename T, int kDim>
class ExtentIndex {
 public:
  using Block = CentroidBlock<T, kDim>;
  using Part = RowPart<T, kDim>;
  static constexpr int kPieces = Block::kPieces;  // of 16 bytes in a row
  static constexpr int64_t kPlane = int64_t{kExtentTokens} * kDim;
  static constexpr int kPlanePieces = kClusterPageTokens * kPieces;  // of a page's keys or values

  // `scratch` [2][512][d]: keys, values.
  __device__ ExtentIndex(T* scratch, int32_t first, Shared<T, kDim>& shared)
      : keys_(scratch), first_(first), shared_(shared) {}

  __device__ __forceinline__ void Run(const ClusterIndexDecodeParams& p, int32_t row,
                                      int32_t head) {
    FindPages(p, row, head);
    ReadTokens();
    Cluster();
    WriteRecords(p.tables.geometry.summary_elements);
    WriteTokens();
    __syncthreads();  // shared memory and scratch may be the next extent's
  }

 private:
  // All addresses, so that tables are not looked at any more while registers are few.
  __device__ __forceinline__ void FindPages(const ClusterIndexDecodeParams& p, int32_t row,
                                            int32_t head) {
    const int32_t i = Thread();
    if (i < kPages) {
      const KvTables& t = p.tables;
      const KvGeometry& g = t.geometry;
      const StreamView stream(t, row, p.layer, head);
      const int32_t page = first_ / kClusterPageTokens + i;
      const int32_t local = stream.tiered() ? t.meta[stream.Meta(page)] : page;
      shared_.slot[i] = local >= 0 ? PageAt(t.slots, g, stream.Slot(local)) : nullptr;
      shared_.host[i] = stream.tiered() ? PageAt(t.host_pages, g, stream.HostPage(page)) : nullptr;
      shared_.from[i] = local >= 0 ? shared_.slot[i] : shared_.host[i];
      if (i == 0) {
        shared_.records = static_cast<T*>(t.summaries) +
                          stream.Summary(first_ / kClusterTokens) * g.summary_elements;
      }
    }
    __syncthreads();
  }

  // Piece `at` of an extent of pages, in order of address: its page and place there, and where it is in scratch.
  struct Piece {
    __device__ explicit Piece(int32_t at)
        : page(at / (2 * kPlanePieces)),
          in_page(at % (2 * kPlanePieces)),
          is_value(in_page / kPlanePieces),
          place(page * kClusterPageTokens + in_page % kPlanePieces / kPieces) {}
    __device__ int64_t InScratch(int32_t token) const {
      return is_value * (kPlane * int64_t{sizeof(T)} / 16) + token * kPieces + in_page % kPieces;
    }
    int32_t page, in_page, is_value, place;
  };
  static constexpr int kExtentPieces = kPages * 2 * kPlanePieces;

  // Pages, some of them the host's, to scratch: 32 KiB in flight.
  __device__ __forceinline__ void ReadTokens() {
    constexpr int kAhead = 8;
    static_assert(kExtentPieces % (kAhead * kThreads) == 0);
    auto* to = reinterpret_cast<uint4*>(keys_);
#pragma unroll 1
    for (int32_t at = Thread(); at < kExtentPieces; at += kAhead * kThreads) {
      uint4 data[kAhead];
#pragma unroll
      for (int q = 0; q < kAhead; ++q) {
        const Piece piece(at + q * kThreads);
        data[q] = LoadStreaming(shared_.from[piece.page] + 16 * piece.in_page);
      }
#pragma unroll
      for (int q = 0; q < kAhead; ++q) {
        const Piece piece(at + q * kThreads);
        to[piece.InScratch(piece.place)] = data[q];
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ void Cluster() {
    SegmentMean<T, kDim, kThreads>(keys_, Fixed(), kExtentTokens, shared_.sums, shared_.mean);
    for (int32_t i = Thread(); i < kClusters * kPieces; i += kThreads) {
      const int32_t c = i / kPieces, piece = i % kPieces;
      const int32_t token = Fixed() + SeedToken(c, kClusters, kExtentTokens - Fixed());
      const auto* key = reinterpret_cast<const uint4*>(keys_ + token * kDim);
      *reinterpret_cast<uint4*>(shared_.centroids + Block::Offset(c, piece)) =
          Centered<T>(key[piece], shared_.mean + piece * kPieceElements<T>);
    }
    if (Thread() < Fixed()) shared_.token[Thread()] = Thread();
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < kClusterIterations; ++i) {
      if (i > 0) UpdateCentroids();
      int32_t place[kTiles];
#pragma unroll
      for (int k = 0; k < kTiles; ++k) place[k] = NearestTo(FirstToken() + k * kTileTokens);
      shared_.sort.Run(place);
#pragma unroll
      for (int k = 0; k < kTiles; ++k) {
        if (place[k] == kNoCluster) continue;
        shared_.token[Fixed() + place[k]] = FirstToken() + k * kTileTokens + Thread() % kWarp;
      }
      if (Thread() < kClusters) {
        shared_.runs[Thread()] = {Fixed() + shared_.sort.Begin(), shared_.sort.Size()};
      }
      __syncthreads();
    }
  }

  // The cluster of this lane's token of the tile at `first`.
  __device__ __forceinline__ int32_t NearestTo(int32_t first) const {
    TokenTile<T, kDim> tile;
    tile.Load(keys_ + first * kDim, shared_.mean);
    Nearest nearest;
    tile.Meet(shared_.centroids, 0, nearest);
    const int32_t cluster = nearest.OfLane();
    return first + Thread() % kWarp < Fixed() ? kNoCluster : cluster;
  }
  // Of the warp.
  static __device__ __forceinline__ int32_t FirstToken() {
    return Thread() / kWarp * (kTiles * kTileTokens);
  }

  // A row for each of a cluster's tokens.
  __device__ __forceinline__ auto RowsOf(const T* rows, const ClusterRun& run) const {
    const int32_t* token = shared_.token + run.begin;
    return [=](int32_t i) { return rows + token[i] * kDim; };
  }

  __device__ __forceinline__ void UpdateCentroids() {
    for (int32_t c = Thread() / kWarp; c < kClusters; c += kWarps) {
      const ClusterRun run = shared_.runs[c];
      Part next;
      if (NextCentroid<T, kDim, kRowsAhead>(run.size, RowsOf(keys_, run), shared_.mean, next)) {
        constexpr int kBytes = static_cast<int>(sizeof(typename Part::Words));
        const int at = Thread() % kWarp * kBytes;
        char* piece = shared_.centroids + Block::Offset(c, at / 16);
        *reinterpret_cast<typename Part::Words*>(piece + at % 16) = next.words;
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ void WriteRecords(int32_t stride) {
    for (int32_t c = Thread() / kWarp; c < kClusters; c += kWarps) {
      const ClusterRun run = shared_.runs[c];
      Part centroid, value;
      if (run.size > 0) {
        centroid = MeanOfRows<T, kDim, kRowsAhead>(run.size, RowsOf(keys_, run));
        value = MeanOfRows<T, kDim, kRowsAhead>(run.size, RowsOf(keys_ + kPlane, run));
      }
      StoreRecord<T, kDim>(shared_.records + int64_t{c} * stride, {first_ + run.begin, run.size},
                           centroid, value);
    }
  }

  // Scratch to pages. The sink goes where it was.
  __device__ __forceinline__ void WriteTokens() {
    const auto* from = reinterpret_cast<const uint4*>(keys_);
    constexpr int kAhead = 4;
#pragma unroll 1
    for (int32_t at = Thread(); at < kExtentPieces; at += kAhead * kThreads) {
      uint4 data[kAhead];
#pragma unroll
      for (int q = 0; q < kAhead; ++q) {
        const Piece piece(at + q * kThreads);
        data[q] = from[piece.InScratch(shared_.token[piece.place])];
      }
#pragma unroll
      for (int q = 0; q < kAhead; ++q) {
        const Piece piece(at + q * kThreads);
        char* slot = shared_.slot[piece.page];
        char* host = shared_.host[piece.page];
        if (slot != nullptr) StoreStreaming(slot + 16 * piece.in_page, data[q]);
        if (host != nullptr) StoreStreaming(host + 16 * piece.in_page, data[q]);
      }
    }
  }

  static __device__ __forceinline__ int32_t Thread() {
    return static_cast<int32_t>(threadIdx.x);
  }

  // Tokens that are in no cluster.
  __device__ __forceinline__ int32_t Fixed() const {
    return first_ == 0 ? kClusterPageTokens : 0;
  }

  T* keys_;              // of the extent, in the tokens' order; its values lie a plane further
  const int32_t first_;  // the extent's first token
  Shared<T, kDim>& shared_;
};

// Nearly always no row has anything to do, and all that a CTA does is to look at a row's position a thread. Floor where
// one has: 512 tokens read and written, once or twice.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    IndexKernel(const __grid_constant__ ClusterIndexDecodeParams p) {
  __shared__ Shared<T, kDim> shared;
  WaitForPredecessors();
  AllowSuccessors();
  const auto head = static_cast<int32_t>(blockIdx.x), worker = static_cast<int32_t>(blockIdx.y);
  const auto workers = static_cast<int32_t>(gridDim.y);
  const int32_t num_rows = NumRows(p.decode);
  bool any = false;
  for (int32_t place = worker + workers * static_cast<int32_t>(threadIdx.x); place < num_rows;
       place += workers * kThreads) {
    any = any || ExtentToIndex(p.decode, place) >= 0;
  }
  if (__syncthreads_or(any) == 0) return;
  T* scratch = static_cast<T*>(p.scratch) +
               (int64_t{worker} * gridDim.x + head) * 2 * ExtentIndex<T, kDim>::kPlane;
#pragma unroll 1
  for (int32_t place = worker; place < NumRows(p.decode); place += workers) {
    const int32_t first = ExtentToIndex(p.decode, place);
    if (first < 0) continue;
    ExtentIndex<T, kDim>(scratch, first, shared).Run(p, p.decode.rows[place], head);
  }
}

int32_t Workers(int32_t max_batch) {
  return std::min(max_batch, kWorkers);
}

template <typename T>
auto KernelFor(int32_t head_dim) {
  return head_dim == 64 ? IndexKernel<T, 64> : IndexKernel<T, 128>;
}

}  // namespace

int64_t ClusterDecodeScratchBytes(const KvGeometry& g, int32_t max_batch) {
  return Workers(max_batch) * g.extent_bytes();
}

void ClusterIndexDecode(const ClusterIndexDecodeParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK_EQ(g.page_tokens, kClusterPageTokens);
  SPIN_CHECK_EQ(g.partition_tokens, kClusterTokens);
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim + kClusterTailElements);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  if (p.decode.max_batch == 0) return;
  SPIN_CHECK(p.scratch != nullptr);
  const dim3 grid(static_cast<unsigned>(g.num_kv_heads),
                  static_cast<unsigned>(Workers(p.decode.max_batch)));
  const auto kernel =
      g.dtype == DType::kF32 ? KernelFor<float>(g.head_dim) : KernelFor<Bf16>(g.head_dim);
  Launch(kernel, grid, kThreads, 0, stream, p);
}

}  // namespace spin::cuda
