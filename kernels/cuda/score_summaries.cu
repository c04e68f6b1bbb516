// Scores of partitions from their summaries: products with the queries, softmax over partitions, the group's maximum or
// sum. "Page" here is what a summary stands for: with SummaryKind::kClusters a cluster.
//
// The pages of all streams (batch place, KV head) are numbered through in steps of 128, and each CTA takes an equal
// range of steps: one wave, whatever the lengths, so that the way to the first summary is gone once, most of it while
// the kernel before still runs. What comes of a stream's logits: page_softmax.cuh.
#include <algorithm>

#include "common/math.h"
#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/page_softmax.cuh"
#include "kernels/cuda/stream_steps.cuh"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/summary_queries.cuh"

namespace spin::cuda {
namespace {

using page_softmax::kMaxGroup;
using page_softmax::kThreads;
using page_softmax::kTilePages;
using page_softmax::kWarps;
using page_softmax::Stream;
constexpr int kStepPages = kWarps * kTilePages;  // what a CTA scores at once
constexpr int kCtas = 2;                         // a multiprocessor

using Steps = StreamSteps<kThreads, kStepPages>;
using Part = Steps::Part;

// Likewise of the kernel behind: pages that a CTA turns into scores at once, and CTAs a multiprocessor.
constexpr int kSoftmaxPages = 4 * kThreads;
constexpr int kSoftmaxCtas = 3;
using SoftmaxSteps = StreamSteps<kThreads, kSoftmaxPages>;

template <typename QueriesShared>
struct Shared {
  Steps steps;
  QueriesShared queries;
  Stream stream;  // that is being scored
  int32_t end;    // of its part
};

// The summaries of one stream. A record holds what is scored, and behind it, of means and centroids, some more.
template <typename T, int kDim, SummaryKind kKind>
class Summaries {
 public:
  __device__ Summaries(const ScoreSummariesParams& p, const Part& part) : pages_(part.pages) {
    const KvGeometry& g = p.tables.geometry;
    directory_ = p.tables.summary_dir + g.DirIndex(part.row, p.layer, 0);
    shift_ = __ffs(g.extent_partitions()) - 1;
    bytes_ = kKind == SummaryKind::kBounds ? kScored : static_cast<int32_t>(g.summary_bytes());
    extent_bytes_ = static_cast<int32_t>(g.summary_extent_bytes());
    of_head_ =
        static_cast<const char*>(p.tables.summaries) + (int64_t{part.head} * bytes_ << shift_);
  }

  // Extent of page `page`, kAbsent past the last one.
  __device__ int32_t Extent(int32_t page) const {
    return page < pages_ ? directory_[page >> shift_] : kAbsent;
  }
  // Page `page`'s summary, given its extent; null past the last page.
  __device__ const char* At(int32_t page, int32_t extent) const {
    if (page >= pages_) return nullptr;
    SPIN_DEVICE_CHECK(extent >= 0);
    return of_head_ + int64_t{extent} * extent_bytes_ + (page & ((1 << shift_) - 1)) * bytes_;
  }
  // What is scored of it on its way to L2: each of four neighbouring lanes takes a quarter.
  __device__ void Prefetch(int32_t page, int32_t extent) const {
    const char* summary = At(page, extent);
    if (summary != nullptr) PrefetchLine(summary + kScored / 4 * (threadIdx.x % 4));
  }

 private:
  static constexpr int kScored = (kKind == SummaryKind::kBounds ? 2 : 1) * kDim * int{sizeof(T)};

  const int32_t* directory_;  // extents
  int32_t pages_;
  int32_t shift_;         // pages of an extent, a power of two
  int32_t bytes_;         // of a record
  int32_t extent_bytes_;  // of all heads
  const char* of_head_;   // of extent 0
};

// Scores the pages of a part, a tile a warp. Both of a tile's halves of 8 pages lie in one extent. `waited`: for
// predecessors; they are, when it returns.
template <typename T, int kDim, SummaryKind kKind>
__device__ __forceinline__ void ScorePart(
    const ScoreSummariesParams& p, const Scratch& scratch, int32_t first_place, const Part& part,
    bool waited, Shared<typename Queries<T, kDim, kKind>::Shared>& shared) {
  const KvGeometry& g = p.tables.geometry;
  if (threadIdx.x == 0) {  // registers are for summaries
    shared.stream =
        Stream(g, p.logits, scratch.partials, first_place, part.place, part.head, part.pages);
    shared.end = part.end;
  }
  const Stream& stream = shared.stream;
  constexpr float scale = kDim == 64 ? 0.125f : 0.0883883476f;  // 1 / sqrt(d)
  const Summaries<T, kDim, kKind> summaries(p, part);
  const int32_t in_tile = static_cast<int32_t>(threadIdx.x % kWarp / 4);

  int32_t page = part.begin + static_cast<int32_t>(threadIdx.x / kWarp) * kTilePages;
  int32_t low_extent = summaries.Extent(page), high_extent = summaries.Extent(page + 8);
  if (!waited) {
    summaries.Prefetch(page + in_tile, low_extent);
    summaries.Prefetch(page + 8 + in_tile, high_extent);
    WaitForPredecessors();
    AllowSuccessors();
  }
  const T* q = static_cast<const T*>(p.qkv) + part.place * QkvWidth(g) +
               int64_t{part.head} * g.group() * kDim;
  const Queries<T, kDim, kKind> queries(q, g.group(), shared.queries);
  __syncthreads();
  for (; page < shared.end; page += kStepPages) {
    const char* low = summaries.At(page + in_tile, low_extent);
    const char* high = summaries.At(page + 8 + in_tile, high_extent);
    float c[4];
    queries.Score(low, high, c);
    if constexpr (kKind == SummaryKind::kClusters) {  // without tokens: its centroid says so
#pragma unroll
      for (float& logit : c) logit = isnan(logit) ? page_softmax::MinusInfinity() : logit;
    }
    low_extent = summaries.Extent(page + kStepPages);
    high_extent = summaries.Extent(page + kStepPages + 8);
    page_softmax::FinishTile(stream, page, scale, c);
  }
}

// Pages of a row that are scored, before `unscored_last` is taken off.
template <SummaryKind kKind>
__device__ __forceinline__ int32_t ScoredPages(const KvGeometry& g, int32_t position) {
  if constexpr (kKind == SummaryKind::kClusters) {
    return static_cast<int32_t>(IndexedTokens(position + 1)) / kClusterTokens;
  } else {
    return position / g.page_tokens + 1;
  }
}

// Numbers the pages that are scored, in the steps of either kernel.
template <SummaryKind kKind, typename AnySteps>
__device__ __forceinline__ int32_t NumberPages(const ScoreSummariesParams& p, int32_t first_place,
                                               AnySteps& steps) {
  const KvGeometry& g = p.tables.geometry;
  return steps.Number(p.decode, g, first_place, [&](int32_t position) {
    return ScoredPages<kKind>(g, position) - p.unscored_last;
  });
}

// Floor: summaries read once (512 bytes a page of bounds at head dimension 128, 256 of a mean or a centroid), and 1/32
// or 1/16 of that written and read again as logits, out of L2. A warp has 8 or 4 KiB of summaries in flight, a
// multiprocessor with two CTAs 128 or 64 KiB: more than what the latency of HBM asks for, so that a CTA that changes
// streams leaves no gap.
//
// Before it waits for predecessors a CTA reads rows, positions and the directory: written before the kernel in front
// of it, which waited for them, began. The summaries may still be written then, and are only prefetched.
template <typename T, int kDim, SummaryKind kKind>
__global__ void __launch_bounds__(kThreads, kCtas)
    ScoreKernel(const ScoreSummariesParams p, const Scratch scratch, int32_t first_place) {
  __shared__ Shared<typename Queries<T, kDim, kKind>::Shared> shared;
  const int32_t steps = NumberPages<kKind>(p, first_place, shared.steps);
  Steps::Share share(shared.steps, steps);
  if (share.done()) WaitForPredecessors();
  for (bool waited = false; !share.done(); waited = true) {
    ScorePart<T, kDim, kKind>(p, scratch, first_place, share.Next(), waited, shared);
    __syncthreads();  // before what is shared changes
  }
}

// Four pages a thread at a time. Floor: logits and scores once through L2; the rest is latency, most of it under
// ScoreKernel's last CTAs.
template <SummaryKind kKind>
__global__ void __launch_bounds__(kThreads, kSoftmaxCtas)
    SoftmaxKernel(const ScoreSummariesParams p, const Scratch scratch, int32_t first_place) {
  __shared__ SoftmaxSteps shared_steps;
  __shared__ page_softmax::Merge merge;
  const KvGeometry& g = p.tables.geometry;
  const int32_t steps = NumberPages<kKind>(p, first_place, shared_steps);
  SoftmaxSteps::Share share(shared_steps, steps);
  WaitForPredecessors();
  AllowSuccessors();
  while (!share.done()) {
    const SoftmaxSteps::Part part = share.Next();
    const Stream stream(g, p.logits, scratch.partials, first_place, part.place, part.head,
                        part.pages);
    int32_t page = part.begin + 4 * static_cast<int32_t>(threadIdx.x);
    page_softmax::Logits logits;
    logits.Load(stream, 0, page);  // while tiles are merged
    page_softmax::MergeTiles(stream, merge);
    float* scores = p.scores + (int64_t{part.place} * g.num_kv_heads + part.head) * g.max_pages();
    while (page < part.end) {
      page_softmax::WriteScores<kKind>(stream, page, logits, p.reduction == GroupReduction::kSum,
                                       merge, scores);
      page += kSoftmaxPages;
      if (page < part.end) logits.Load(stream, 0, page);
    }
    __syncthreads();  // before the merge is another
  }
}

template <SummaryKind kKind>
auto KernelFor(const KvGeometry& g) {
  if (g.dtype == DType::kF32) {
    return g.head_dim == 64 ? ScoreKernel<float, 64, kKind> : ScoreKernel<float, 128, kKind>;
  }
  return g.head_dim == 64 ? ScoreKernel<Bf16, 64, kKind> : ScoreKernel<Bf16, 128, kKind>;
}

// Places that take their turn together: as many as are numbered at once, and as scratch has room for the tiles of.
int32_t PlacesAtOnce(const KvGeometry& g) {
  const int64_t tiles = CeilDiv<int64_t>(g.max_pages(), kTilePages);
  const int64_t room = kPartialFloats / (2 * g.num_q_heads * tiles);
  SPIN_CHECK_GE(room, 1);  // of 128 heads and 4 Mi tokens in pages of 8 there still is one
  return static_cast<int32_t>(std::min<int64_t>(Steps::kPlaces, room));
}

template <SummaryKind kKind>
void Enqueue(const ScoreSummariesParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t places = PlacesAtOnce(g);
  ScoreSummariesParams some = p;  // as if the batch ended with them
  for (int32_t first = 0; first < p.decode.max_batch; first += places) {
    some.decode.max_batch = std::min(p.decode.max_batch, first + places);
    Launch(KernelFor<kKind>(g), Steps::Grid(some.decode, g, first, kCtas), dim3(kThreads), 0,
           stream, some, scratch, first);
    Launch(SoftmaxKernel<kKind>, SoftmaxSteps::Grid(some.decode, g, first, kSoftmaxCtas),
           dim3(kThreads), 0, stream, some, scratch, first);
  }
}

}  // namespace

void ScoreSummaries(const ScoreSummariesParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  const bool clusters = p.kind == SummaryKind::kClusters;
  const int32_t vectors = p.kind == SummaryKind::kMean ? 1 : 2;
  SPIN_CHECK_EQ(g.summary_elements,
                vectors * g.head_dim + g.key_piece() + (clusters ? kClusterTailElements : 0));
  if (clusters) SPIN_CHECK_EQ(g.partition_tokens, kClusterTokens);
  SPIN_CHECK_GE(p.unscored_last, 0);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  static_assert(kMaxQueryGroup == kMaxGroup);
  SPIN_CHECK(g.group() >= 1 && g.group() <= kMaxGroup);
  SPIN_CHECK_EQ(g.extent_pages() % 8, 0);
  SPIN_CHECK(p.logits != nullptr);
  const auto enqueue = clusters                         ? Enqueue<SummaryKind::kClusters>
                       : p.kind == SummaryKind::kBounds ? Enqueue<SummaryKind::kBounds>
                                                        : Enqueue<SummaryKind::kMean>;
  enqueue(p, scratch, stream);
}

}  // namespace spin::cuda
