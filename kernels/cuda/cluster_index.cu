// RetroInfer's Index of a prompt: k-means of every segment of every KV head at once, then the order of the tokens and
// the clusters' records.
//
// A launch is one step of all segments, so that even a single sequence fills the machine:
//   begin    means of the segments, first centroids
//   assign   tokens to centroids, ten times; a product of [8192 x d] and [d x 512] a segment and head, on tensor cores
//   sort     tokens by cluster, behind each assignment
//   update   centroids, between two assignments
//   records  means of keys and values
// What a step leaves for the next is in the caller's scratch: 10 MB for 64K tokens of 8 heads of 128. Keys are centered
// anew where they are read, which is cheaper than a copy of them all.
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

constexpr int kSegmentClusters = kClusterSegmentTokens / kClusterTokens;
constexpr int kBeginThreads = 1024;
constexpr int kAssignWarps = 8;
constexpr int kAssignThreads = kAssignWarps * kWarp;
constexpr int kAssignTokens = kAssignWarps * kTileTokens;  // of a CTA
constexpr int kRing = 4;                                   // blocks of centroids in shared memory
constexpr int kSortWarps = 32;
constexpr int kSortSteps = kClusterSegmentTokens / kSortWarps / kWarp;
constexpr int kSumWarps = 8;  // a cluster each
constexpr int kAhead = 16;    // rows in flight a warp: as many as a cluster has on average
static_assert(kExtentTokens % kAssignTokens == 0, "a segment has no tile that is not full");

using Sort = ClusterSort<kSortWarps, kSortSteps, kSegmentClusters>;

// What the steps hand each other. Places and clusters of a head are counted through its staging: cluster c of a slice
// is number page_begin / 2 + c, of which no two slices have the same, since a slice's clusters have fewer tokens than
// its pages; likewise extents.
struct PrefillScratch {
  PrefillScratch(const KvGeometry& g, int32_t staging_pages, void* base)
      : tokens(staging_pages * kClusterPageTokens),
        clusters(CeilDiv(tokens, kClusterTokens)),
        extents(CeilDiv(tokens, kExtentTokens)) {
    const int64_t heads = g.num_kv_heads;
    const auto take = [&](int64_t size) {
      const int64_t at = bytes;
      bytes += RoundUp(size, int64_t{256});
      return static_cast<char*>(base) + at;
    };
    means = reinterpret_cast<float*>(take(heads * extents * g.head_dim * int64_t{4}));
    centroids = take(heads * clusters * g.head_dim * SizeOf(g.dtype));
    runs = reinterpret_cast<ClusterRun*>(take(heads * clusters * int64_t{sizeof(ClusterRun)}));
    assigned = reinterpret_cast<uint16_t*>(take(heads * tokens * int64_t{2}));
  }

  int32_t tokens, clusters, extents;  // a head
  int64_t bytes = 0;
  float* means;        // [Hkv][extents][d], a segment's where its first extent is
  void* centroids;     // [Hkv][clusters][d] of the pages' type
  ClusterRun* runs;    // [Hkv][clusters]: places, counted through the head's staging
  uint16_t* assigned;  // [Hkv][tokens] cluster of the segment
};

struct PrefillTask {
  ClusterIndexPrefillParams p;
  PrefillScratch scratch;
};

__device__ __forceinline__ int32_t TokensOf(const PrefillSlice& slice) {
  return slice.prefix_tokens + slice.num_tokens;
}

// One segment of one head, as the arrays have it.
template <typename T>
struct Segment {
  // The segment of number `index` over all slices; tokens 0 where there are fewer.
  __device__ Segment(const PrefillTask& task, int32_t head, int32_t index) : task_(task) {
    const ClusterIndexPrefillParams& p = task.p;
    for (int32_t s = 0; s < p.num_slices; ++s) {
      slice = p.slices[s];
      const auto indexed = static_cast<int32_t>(IndexedTokens(TokensOf(slice)));
      const int32_t segments = CeilDiv(indexed, kClusterSegmentTokens);
      if (index >= segments) {
        index -= segments;
        continue;
      }
      SPIN_DEVICE_CHECK(slice.page_begin >= 0 &&
                        slice.page_begin * kClusterPageTokens + TokensOf(slice) <=
                            task.scratch.tokens);
      const int32_t first = index * kClusterSegmentTokens;
      tokens = min(indexed - first, kClusterSegmentTokens);
      fixed = first == 0 ? kClusterPageTokens : 0;
      clusters = tokens / kClusterTokens;
      first_cluster = first / kClusterTokens;
      place = int64_t{head} * task.scratch.tokens + slice.page_begin * kClusterPageTokens + first;
      cluster = int64_t{head} * task.scratch.clusters + slice.page_begin / 2 + first_cluster;
      extent = int64_t{head} * task.scratch.extents +
               (slice.page_begin * kClusterPageTokens + first) / kExtentTokens;
      const StagingView staging(p.staging, p.tables.geometry);
      head_place = place - int64_t{head} * task.scratch.tokens;
      keys = reinterpret_cast<const T*>(staging.Key(head, head_place));
      values = reinterpret_cast<const T*>(staging.Value(head, head_place));
      return;
    }
  }

  __device__ float* Mean() const {
    return task_.scratch.means + extent * task_.p.tables.geometry.head_dim;
  }
  __device__ T* Centroid(int32_t c) const {
    return static_cast<T*>(task_.scratch.centroids) +
           (cluster + c) * task_.p.tables.geometry.head_dim;
  }
  __device__ ClusterRun& Run(int32_t c) const { return task_.scratch.runs[cluster + c]; }
  __device__ uint16_t* Assigned() const { return task_.scratch.assigned + place; }
  __device__ int32_t* Order() const { return task_.p.order + place; }

  PrefillSlice slice;
  int32_t tokens = 0;  // those in fixed places among them
  int32_t fixed;       // the sink
  int32_t clusters;
  int32_t first_cluster;           // of the sequence's
  int64_t place, cluster, extent;  // of the first, in the arrays of all heads
  int64_t head_place;              // the same within the head's staging
  const T* keys;                   // of all its tokens
  const T* values;

 private:
  const PrefillTask& task_;
};

// Tokens that are in no cluster keep their places.
__global__ void __launch_bounds__(256) KeepPlaces(const __grid_constant__ PrefillTask task) {
  WaitForPredecessors();
  AllowSuccessors();
  const PrefillSlice slice = task.p.slices[blockIdx.y];
  const int32_t tokens = TokensOf(slice);
  const auto indexed = static_cast<int32_t>(IndexedTokens(tokens));
  const int32_t sink = min(indexed, kClusterPageTokens);
  int32_t* order = task.p.order + int64_t{blockIdx.x} * task.scratch.tokens;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < sink + tokens - indexed; i += 256) {
    const int32_t place =
        slice.page_begin * kClusterPageTokens + (i < sink ? i : i - sink + indexed);
    order[place] = place;
  }
}

// A CTA a segment. Floor: the keys read once, as twenty times more in the steps that follow.
template <typename T, int kDim>
__global__ void __launch_bounds__(kBeginThreads, 1)
    Begin(const __grid_constant__ PrefillTask task) {
  __shared__ float sums[kMeanFloats<T, kBeginThreads>];
  __shared__ alignas(16) float mean[kDim];
  WaitForPredecessors();
  AllowSuccessors();
  const Segment<T> segment(task, blockIdx.x, blockIdx.y);
  if (segment.tokens == 0) return;
  SegmentMean<T, kDim, kBeginThreads>(segment.keys, segment.fixed, segment.tokens, sums, mean);
  if (threadIdx.x < kDim) segment.Mean()[threadIdx.x] = mean[threadIdx.x];
  constexpr int kPieces = kDim / kPieceElements<T>;
  auto* centroids = reinterpret_cast<uint4*>(segment.Centroid(0));
  for (auto i = static_cast<int32_t>(threadIdx.x); i < segment.clusters * kPieces;
       i += kBeginThreads) {
    const int32_t token =
        segment.fixed + SeedToken(i / kPieces, segment.clusters, segment.tokens - segment.fixed);
    const auto* key = reinterpret_cast<const uint4*>(segment.keys + int64_t{token} * kDim);
    centroids[i] = Centered<T>(key[i % kPieces], mean + i % kPieces * kPieceElements<T>);
  }
}

// Enqueues the copy of a block of centroids as one group; of none where there are no more.
template <typename T, int kDim>
__device__ __forceinline__ void LoadBlock(const Segment<T>& segment, int32_t block, char* ring) {
  using Block = CentroidBlock<T, kDim>;
  if (block * kBlockClusters < segment.clusters) {
    const auto* from = reinterpret_cast<const uint4*>(segment.Centroid(block * kBlockClusters));
    const uint32_t to = SharedAddress(ring + block % kRing * Block::kBytes);
#pragma unroll
    for (int i = 0; i < Block::kBytes / 16; i += kAssignThreads) {
      const int at = i + static_cast<int>(threadIdx.x);
      CopyChunk(to + Block::Offset(at / Block::kPieces, at % Block::kPieces), from + at, true);
    }
  }
  CommitCopies();
}

// A CTA 256 tokens, a warp 32, which stay in registers and meet all centroids of their segment.
//
// Floor: 2 * 32 * 512 * d operations a warp's tile; a block of 32 centroids is 64 products of 16 x 8 x 16 a warp
// between two barriers, for 8 KiB of shared memory that it reads: half of what shared memory gives in that time. The
// largest product is found in registers, three instructions each, a quarter of the issue slots that the products leave.
template <typename T, int kDim>
__global__ void __launch_bounds__(kAssignThreads, 2)
    Assign(const __grid_constant__ PrefillTask task) {
  extern __shared__ uint4 ring[];
  static_assert(CentroidBlock<T, kDim>::kBytes / 16 % kAssignThreads == 0);
  WaitForPredecessors();
  AllowSuccessors();
  const Segment<T> segment(task, blockIdx.y, blockIdx.z);
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kAssignTokens;
  if (first >= segment.tokens) return;
  char* const blocks = reinterpret_cast<char*>(ring);
#pragma unroll
  for (int b = 0; b < kRing - 1; ++b) LoadBlock<T, kDim>(segment, b, blocks);
  const int32_t token = first + static_cast<int32_t>(threadIdx.x / kWarp) * kTileTokens;
  TokenTile<T, kDim> tile;
  tile.Load(segment.keys + int64_t{token} * kDim, segment.Mean());
  Nearest nearest;
  for (int32_t b = 0; b * kBlockClusters < segment.clusters; ++b) {
    WaitCopies<kRing - 2>();
    __syncthreads();  // the block is there, and nobody reads the one before it any more
    LoadBlock<T, kDim>(segment, b + kRing - 1, blocks);
    tile.Meet(blocks + b % kRing * CentroidBlock<T, kDim>::kBytes, b * kBlockClusters, nearest);
  }
  segment.Assigned()[token + threadIdx.x % kWarp] = static_cast<uint16_t>(nearest.OfLane());
}

// A CTA a segment: latency, a few microseconds.
template <typename T>
__global__ void __launch_bounds__(kSortWarps* kWarp, 1)
    SortTokens(const __grid_constant__ PrefillTask task) {
  __shared__ Sort sort;
  WaitForPredecessors();
  AllowSuccessors();
  const Segment<T> segment(task, blockIdx.x, blockIdx.y);
  if (segment.tokens == 0) return;
  const auto first =
      static_cast<int32_t>(threadIdx.x / kWarp * (kSortSteps * kWarp) + threadIdx.x % kWarp);
  int32_t place[kSortSteps];
#pragma unroll
  for (int s = 0; s < kSortSteps; ++s) {
    const int32_t token = first + s * kWarp;
    const bool sorted = token >= segment.fixed && token < segment.tokens;
    place[s] = sorted ? segment.Assigned()[token] : kNoCluster;
  }
  sort.Run(place);
  const auto origin = static_cast<int32_t>(segment.head_place);
#pragma unroll
  for (int s = 0; s < kSortSteps; ++s) {
    if (place[s] == kNoCluster) continue;
    segment.Order()[segment.fixed + place[s]] = origin + first + s * kWarp;
  }
  if (static_cast<int32_t>(threadIdx.x) < segment.clusters) {
    segment.Run(static_cast<int32_t>(threadIdx.x)) = {origin + segment.fixed + sort.Begin(),
                                                      sort.Size()};
  }
}

// The cluster of this warp in its segment: there may be none.
__device__ __forceinline__ int32_t ClusterOfWarp() {
  return static_cast<int32_t>(blockIdx.x * kSumWarps + threadIdx.x / kWarp);
}

// Rows of a cluster's tokens, in the order of their places.
template <typename T, int kDim>
struct RowsOfRun {
  __device__ RowsOfRun(const Segment<T>& segment, const T* first_row, const ClusterRun& run)
      : order(segment.Order() + (run.begin - segment.head_place)),
        rows(first_row - segment.head_place * kDim) {}
  __device__ __forceinline__ const T* operator()(int32_t i) const {
    return rows + int64_t{order[i]} * kDim;
  }

  const int32_t* order;
  const T* rows;  // of the head's first token
};

// A warp a cluster. Floor: the keys read once, a row of 128 to 512 bytes at a time.
template <typename T, int kDim>
__global__ void __launch_bounds__(kSumWarps* kWarp, 2)
    UpdateCentroids(const __grid_constant__ PrefillTask task) {
  WaitForPredecessors();
  AllowSuccessors();
  const Segment<T> segment(task, blockIdx.y, blockIdx.z);
  const int32_t c = ClusterOfWarp();
  if (segment.tokens == 0 || c >= segment.clusters) return;
  const ClusterRun run = segment.Run(c);
  const RowsOfRun<T, kDim> keys(segment, segment.keys, run);
  using Part = RowPart<T, kDim>;
  Part centroid;
  if (NextCentroid<T, kDim, kAhead>(run.size, keys, segment.Mean(), centroid)) {
    *reinterpret_cast<typename Part::Words*>(segment.Centroid(c) + Part::First()) = centroid.words;
  }
}

// Likewise; values, too.
template <typename T, int kDim>
__global__ void __launch_bounds__(kSumWarps* kWarp)
    WriteRecords(const __grid_constant__ PrefillTask task) {
  WaitForPredecessors();
  AllowSuccessors();
  const auto head = static_cast<int32_t>(blockIdx.y);
  const Segment<T> segment(task, head, blockIdx.z);
  const int32_t c = ClusterOfWarp();
  if (segment.tokens == 0 || c >= segment.clusters) return;
  const ClusterRun run = segment.Run(c);
  RowPart<T, kDim> centroid, value;
  if (run.size > 0) {
    centroid =
        MeanOfRows<T, kDim, kAhead>(run.size, RowsOfRun<T, kDim>(segment, segment.keys, run));
    value = MeanOfRows<T, kDim, kAhead>(run.size, RowsOfRun<T, kDim>(segment, segment.values, run));
  }
  const KvTables& t = task.p.tables;
  const StreamView stream(t, segment.slice.row, task.p.layer, head);
  T* record = static_cast<T*>(t.summaries) +
              stream.Summary(segment.first_cluster + c) * t.geometry.summary_elements;
  const int32_t origin = segment.slice.page_begin * kClusterPageTokens;
  StoreRecord<T, kDim>(record, {run.begin - origin, run.size}, centroid, value);
}

template <typename T, int kDim>
void LaunchPrefill(const PrefillTask& task, cudaStream_t stream) {
  const KvGeometry& g = task.p.tables.geometry;
  const auto heads = static_cast<unsigned>(g.num_kv_heads);
  // Each slice may end in a segment that is not full.
  const auto segments = static_cast<unsigned>(task.scratch.tokens / kClusterSegmentTokens +
                                              std::min(task.p.num_slices, task.scratch.extents));
  // Shorter segments than 8,192 tokens where staging has no room for such.
  const int32_t longest = std::min(task.scratch.extents * kExtentTokens, kClusterSegmentTokens);
  const dim3 assign_grid(static_cast<unsigned>(longest / kAssignTokens), heads, segments);
  const dim3 sum_grid(static_cast<unsigned>(longest / kClusterTokens / kSumWarps), heads, segments);
  const dim3 segment_grid(heads, segments);
  constexpr size_t kRingBytes = size_t{kRing} * CentroidBlock<T, kDim>::kBytes;
  Launch(Begin<T, kDim>, segment_grid, kBeginThreads, 0, stream, task);
  for (int i = 0; i < kClusterIterations; ++i) {
    if (i > 0) Launch(UpdateCentroids<T, kDim>, sum_grid, kSumWarps * kWarp, 0, stream, task);
    Launch(Assign<T, kDim>, assign_grid, kAssignThreads, kRingBytes, stream, task);
    Launch(SortTokens<T>, segment_grid, kSortWarps * kWarp, 0, stream, task);
  }
  Launch(WriteRecords<T, kDim>, sum_grid, kSumWarps * kWarp, 0, stream, task);
}

void CheckGeometry(const KvGeometry& g) {
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK_EQ(g.page_tokens, kClusterPageTokens);
  SPIN_CHECK_EQ(g.partition_tokens, kClusterTokens);
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim + kClusterTailElements);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
}

}  // namespace

int64_t ClusterPrefillScratchBytes(const KvGeometry& g, int32_t staging_pages) {
  return PrefillScratch(g, staging_pages, nullptr).bytes;
}

void ClusterIndexPrefill(const ClusterIndexPrefillParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  CheckGeometry(g);
  if (p.num_slices == 0) return;
  SPIN_CHECK(p.order != nullptr && p.scratch != nullptr);
  SPIN_CHECK_LT(p.num_slices, 1 << 15);
  const PrefillTask task = {p, PrefillScratch(g, p.staging.num_pages, p.scratch)};
  const dim3 grid(static_cast<unsigned>(g.num_kv_heads), static_cast<unsigned>(p.num_slices));
  Launch(KeepPlaces, grid, 256, 0, stream, task);
  if (g.dtype == DType::kF32) {
    g.head_dim == 64 ? LaunchPrefill<float, 64>(task, stream)
                     : LaunchPrefill<float, 128>(task, stream);
  } else {
    g.head_dim == 64 ? LaunchPrefill<Bf16, 64>(task, stream)
                     : LaunchPrefill<Bf16, 128>(task, stream);
  }
}

}  // namespace spin::cuda
