// RetroInfer's Select: clusters by rank, within the pages that they may touch; then pages and their masks. One CTA a
// stream; bit for bit kernels/cpu/cluster_select.cc for the same scores.
//
// The order of rank is needed only where the best clusters touch more pages than they may, which is rare: else all of
// them are taken, and the selection of top_scores.cuh, which has them by id, is enough. Pages of what is taken are bits
// in shared memory, a byte a page, which come out as ids and masks in one go; estimated clusters likewise.

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/top_scores.cuh"

namespace spin::cuda {
namespace {

using top_scores::kThreads;
using top_scores::kWarps;
using top_scores::Lane;
using top_scores::Warp;
using top_scores::WarpScan;

constexpr int kRunLanes = 8;  // that mark the pages of one run

// The best clusters of a stream, ascending until they are ranked.
struct Best {
  uint2 rank;  // key of the score, ~id: the greater the better, and no two are equal
  ClusterRun run;

  __device__ int32_t id() const { return static_cast<int32_t>(~rank.x); }
  __device__ bool Before(const Best& other) const {
    return rank.y != other.rank.y ? rank.y > other.rank.y : rank.x > other.rank.x;
  }
  __device__ int32_t Pages() const {
    return (run.begin + run.size - 1) / kClusterPageTokens - run.begin / kClusterPageTokens + 1;
  }
};
static_assert(sizeof(Best) == 4 * sizeof(int32_t));

struct Shared {
  top_scores::Shared top;
  int32_t of_warp[kWarps];
  int32_t ranked, pages;  // clusters with tokens; pages that the best touch
  int32_t taken;
};
static_assert(sizeof(Shared) <= kClusterStaticBytes);

// Sum of `value` over lower threads; `total` over all. Whole block.
__device__ __forceinline__ int32_t BlockScan(int32_t value, int32_t (&of_warp)[kWarps],
                                             int32_t& total) {
  const int32_t upto = WarpScan(value);
  __syncthreads();  // the last scan's sums have been read
  if (Lane() == kWarp - 1) of_warp[Warp()] = upto;
  __syncthreads();
  int32_t before = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < Warp()) before += of_warp[w];
    total += of_warp[w];
  }
  return before + upto - value;
}

// What of a page's tokens [0, end) a run leaves: bits of those from `begin` on.
__device__ __forceinline__ uint32_t MaskOf(int32_t begin, int32_t end) {
  return (0xffu << max(begin, 0)) & (0xffu >> (kClusterPageTokens - min(end, kClusterPageTokens)));
}

class StreamSelect {
 public:
  __device__ StreamSelect(const ClusterSelectParams& p, const ClusterRoom& room, Shared& shared,
                          uint32_t* dynamic)
      : p_(p),
        shared_(shared),
        best_(reinterpret_cast<Best*>(dynamic)),
        pages_(dynamic + 4 * room.retrieved),
        estimated_(pages_ + room.page_words) {}

  __device__ __forceinline__ void Run(int32_t place, int32_t head) {
    const KvGeometry& g = p_.tables.geometry;
    const int32_t row = p_.decode.rows[place];
    const int32_t tokens = p_.decode.position[row] + 1;
    SPIN_DEVICE_CHECK(tokens <= g.max_pages() * kClusterPageTokens);
    const int32_t own = p_.row_pages == nullptr ? 0 : p_.row_pages[row];
    SPIN_DEVICE_CHECK(own == 0 || tokens <= own * kClusterPageTokens);
    // Of a row that is attended to as a whole, as if nothing were in clusters.
    const auto indexed = own > 0 ? 0 : static_cast<int32_t>(IndexedTokens(tokens));
    const int64_t stream = int64_t{place} * g.num_kv_heads + head;
    const int32_t clusters = indexed / kClusterTokens;
    const int32_t retrieved = clusters == 0 ? 0 : FindBest(stream, clusters);
    LoadRuns(StreamView(p_.tables, row, p_.layer, head), retrieved);
    int32_t taken = retrieved;
    const int32_t max_pages = p_.budget.MaxPages(clusters);
    if (shared_.pages > max_pages) {
      Rank(retrieved);
      taken = TakeWithin(max_pages, retrieved);
    }
    MarkTaken(taken, indexed > 0);
    WritePages(stream, indexed, tokens);
    WriteEstimated(stream, clusters);
  }

 private:
  // Marks all that is retrieved or estimated as estimated; best_ holds those to be retrieved. Returns how many.
  __device__ __forceinline__ int32_t FindBest(int64_t stream, int32_t clusters) {
    const KvGeometry& g = p_.tables.geometry;
    const top_scores::Candidates from = {p_.scores + stream * g.max_pages(), 0, clusters};
    top_scores::Keys keys(from);
    const uint32_t empty = top_scores::OrderedKey(__int_as_float(0xff800000));
    int32_t ranked = 0;
    keys.ForEach([&](uint32_t key) { ranked += key != empty && key != top_scores::kNoKey; });
    ranked = __reduce_add_sync(kAllLanes, ranked);
    if (Lane() == 0) atomicAdd(&shared_.ranked, ranked);
    __syncthreads();
    ranked = shared_.ranked;
    const int32_t retrieved = min(p_.budget.Retrieve(clusters), ranked);
    const int32_t all = min(retrieved + p_.budget.Estimate(clusters), ranked);
#pragma unroll 1
    for (int32_t count = all;;) {
      if (count > 0) {
        const top_scores::Cut cut = top_scores::FindCut(keys, count, shared_.top);
        top_scores::ForEachChosen(from, keys, cut, shared_.top, [&](int32_t i, int32_t id) {
          if (count == all) atomicOr(&estimated_[id / 32], 1u << id % 32);
          if (count == retrieved) {
            best_[i].rank = {~static_cast<uint32_t>(id), top_scores::OrderedKey(from.scores[id])};
          }
        });
      }
      if (count == retrieved) break;
      count = retrieved;
    }
    __syncthreads();
    return retrieved;
  }

  // Of the best; and how many pages they touch. Ends with a barrier.
  __device__ __forceinline__ void LoadRuns(const StreamView& stream, int32_t retrieved) {
    const KvGeometry& g = p_.tables.geometry;
    const auto* records = static_cast<const char*>(p_.tables.summaries);
    const int64_t run_at = 2 * g.head_dim * SizeOf(g.dtype);
    int32_t pages = 0;
    for (auto i = static_cast<int32_t>(threadIdx.x); i < retrieved; i += kThreads) {
      const char* record = records + stream.Summary(best_[i].id()) * g.summary_bytes();
      best_[i].run = *reinterpret_cast<const ClusterRun*>(record + run_at);
      SPIN_DEVICE_CHECK(best_[i].run.size > 0 && best_[i].run.begin >= kClusterPageTokens);
      pages += best_[i].Pages();
    }
    pages = __reduce_add_sync(kAllLanes, pages);
    if (Lane() == 0 && pages > 0) atomicAdd(&shared_.pages, pages);
    __syncthreads();
  }

  // best_ by rank: a bitonic sort, behind the last one entries that are worse than any. Ends with a barrier.
  __device__ __forceinline__ void Rank(int32_t retrieved) {
    int32_t size = 1;
    while (size < retrieved) size *= 2;
    for (int32_t i = retrieved + static_cast<int32_t>(threadIdx.x); i < size; i += kThreads) {
      best_[i].rank = {0, 0};
    }
    __syncthreads();
    for (int32_t ordered = 2; ordered <= size; ordered *= 2) {
      for (int32_t step = ordered / 2; step > 0; step /= 2) {
        for (auto i = static_cast<int32_t>(threadIdx.x); i < size; i += kThreads) {
          const int32_t other = i ^ step;
          if (other < i) continue;
          const Best low = best_[i], high = best_[other];
          if (high.Before(low) != ((i & ordered) == 0)) continue;
          best_[i] = high;
          best_[other] = low;
        }
        __syncthreads();
      }
    }
  }

  // Of the ranked ones those that fit, one after the other, to the front of best_; returns how many. The first warp
  // walks, 32 at a time: up to the first that does not fit all do, and behind it they are looked at again.
  __device__ __forceinline__ int32_t TakeWithin(int32_t max_pages, int32_t retrieved) {
    int32_t used = 0, taken = 0;
    for (int32_t begin = 0; Warp() == 0 && begin < retrieved; begin += kWarp) {
      const int32_t i = begin + Lane();
      const Best own = best_[min(i, retrieved - 1)];
      int32_t pages = i < retrieved ? own.Pages() : 0;
      for (;;) {
        const int32_t upto = used + WarpScan(pages);
        const unsigned over = __ballot_sync(kAllLanes, pages > 0 && upto > max_pages);
        if (over == 0) {
          used = __shfl_sync(kAllLanes, upto, kWarp - 1);
          break;
        }
        if (Lane() == __ffs(over) - 1) pages = 0;
      }
      const unsigned fits = __ballot_sync(kAllLanes, pages > 0);
      if (pages > 0) best_[taken + __popc(fits & ((1u << Lane()) - 1))] = own;
      taken += __popc(fits);
      __syncwarp();
    }
    if (threadIdx.x == 0) shared_.taken = taken;
    __syncthreads();
    return shared_.taken;
  }

  // The pages of the clusters that are taken, which are not estimated. Ends with a barrier.
  __device__ __forceinline__ void MarkTaken(int32_t taken, bool sink) {
    if (threadIdx.x == 0 && sink) atomicOr(pages_, 0xffu);
    const auto lane = static_cast<int32_t>(threadIdx.x) % kRunLanes;
    for (int32_t i = static_cast<int32_t>(threadIdx.x) / kRunLanes; i < taken;
         i += kThreads / kRunLanes) {
      const Best& best = best_[i];
      const int32_t id = best.id(), end = best.run.begin + best.run.size;
      if (lane == 0) atomicAnd(&estimated_[id / 32], ~(1u << id % 32));
      for (int32_t page = best.run.begin / kClusterPageTokens + lane;
           page * kClusterPageTokens < end; page += kRunLanes) {
        const int32_t first = page * kClusterPageTokens;
        const uint32_t mask = MaskOf(best.run.begin - first, end - first);
        atomicOr(&pages_[page / 4], mask << 8 * (page % 4));
      }
    }
    __syncthreads();
  }

  // Marked pages, then all behind the index. A thread looks at neighbouring words of four pages.
  __device__ __forceinline__ void WritePages(int64_t stream, int32_t indexed, int32_t tokens) {
    int32_t* ids = p_.ids + stream * p_.max_selected;
    uint8_t* masks = p_.page_mask + stream * p_.max_selected;
    const int32_t words = indexed / (4 * kClusterPageTokens);
    const int32_t share = CeilDiv(words, kThreads);
    const int32_t begin = min(static_cast<int32_t>(threadIdx.x) * share, words);
    const int32_t end = min(begin + share, words);
    int32_t marked = 0, count = 0;
    for (int32_t w = begin; w < end; ++w) marked += __popc(__vcmpgtu4(pages_[w], 0)) / 8;
    int32_t at = BlockScan(marked, shared_.of_warp, count);
    const int32_t rest = CeilDiv(tokens - indexed, kClusterPageTokens);
    SPIN_DEVICE_CHECK(count + rest <= p_.max_selected);
    for (int32_t w = begin; w < end; ++w) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto mask = static_cast<uint8_t>(pages_[w] >> 8 * i);
        if (mask == 0) continue;
        ids[at] = 4 * w + i;
        masks[at++] = mask;
      }
    }
    for (auto i = static_cast<int32_t>(threadIdx.x); i < rest; i += kThreads) {
      const int32_t page = indexed / kClusterPageTokens + i;
      ids[count + i] = page;
      masks[count + i] = static_cast<uint8_t>(MaskOf(0, tokens - page * kClusterPageTokens));
    }
    if (threadIdx.x == 0) p_.count[stream] = count + rest;
  }

  // Likewise the estimated clusters.
  __device__ __forceinline__ void WriteEstimated(int64_t stream, int32_t clusters) {
    int32_t* ids = p_.estimate_ids + stream * p_.max_estimate;
    const int32_t words = CeilDiv(clusters, 32);
    const int32_t share = CeilDiv(words, kThreads);
    const int32_t begin = min(static_cast<int32_t>(threadIdx.x) * share, words);
    const int32_t end = min(begin + share, words);
    int32_t marked = 0, count = 0;
    for (int32_t w = begin; w < end; ++w) marked += __popc(estimated_[w]);
    int32_t at = BlockScan(marked, shared_.of_warp, count);
    SPIN_DEVICE_CHECK(count <= p_.max_estimate);
    for (int32_t w = begin; w < end; ++w) {
      for (uint32_t left = estimated_[w]; left != 0; left &= left - 1) {
        ids[at++] = 32 * w + __ffs(static_cast<int>(left)) - 1;
      }
    }
    if (threadIdx.x == 0) p_.estimate_count[stream] = count;
  }

  const ClusterSelectParams& p_;
  Shared& shared_;
  Best* best_;           // [retrieved]
  uint32_t* pages_;      // a byte a page: the tokens of it that are attended to
  uint32_t* estimated_;  // a bit a cluster
};

// Scores are read once, up to 8,192 of a stream (128K tokens), and stay in registers. What is left is latency: two
// selections, a dependent read of the runs, two compactions.
__global__ void __launch_bounds__(kThreads, 1)
    SelectKernel(const __grid_constant__ ClusterSelectParams p, const ClusterRoom room) {
  extern __shared__ uint4 dynamic[];
  __shared__ Shared shared;
  shared.top.Clear();
  if (threadIdx.x == 0) shared.ranked = shared.pages = 0;
  auto* words = reinterpret_cast<uint32_t*>(dynamic);
  const int32_t marks = room.page_words + room.cluster_words;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < marks; i += kThreads) {
    words[4 * room.retrieved + i] = 0;
  }
  __syncthreads();
  WaitForPredecessors();
  AllowSuccessors();
  const auto place = static_cast<int32_t>(blockIdx.y);
  if (place >= NumRows(p.decode)) return;
  StreamSelect(p, room, shared, words).Run(place, static_cast<int32_t>(blockIdx.x));
}

}  // namespace

void ClusterSelect(const ClusterSelectParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.page_tokens, kClusterPageTokens);
  SPIN_CHECK_EQ(g.partition_tokens, kClusterTokens);
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim + kClusterTailElements);
  if (p.decode.max_batch == 0) return;
  const ClusterRoom room(g, p.budget.Retrieve(g.max_extents * g.extent_partitions()));
  const dim3 grid(static_cast<unsigned>(g.num_kv_heads), static_cast<unsigned>(p.decode.max_batch));
  Launch(SelectKernel, grid, kThreads, static_cast<size_t>(room.Bytes()), stream, p, room);
}

}  // namespace spin::cuda
