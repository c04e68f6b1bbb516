// Scores of partitions from their summaries: products with the queries, softmax over partitions, the group's maximum or
// sum. "Page" here is what a summary stands for: with SummaryKind::kClusters a cluster.
//
// The pages of all streams (batch place, KV head) are numbered through in steps of 128, and each CTA takes an equal
// range of steps: one wave, whatever the lengths, so that the way to the first summary is gone once. A CTA writes the
// logits of its pages and, for every tile of 16 pages and query head, (maximum, sum of exponentials); the last CTA to
// arrive at a stream merges those in a fixed order and turns logits into scores. Nothing of that depends on how the
// stream was split: a row's scores are the same bits in every batch.
#include <algorithm>

#include "common/math.h"
#include "kernels/cuda/arrival.cuh"
#include "kernels/cuda/families.h"
#include "kernels/cuda/stream_steps.cuh"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/summary_queries.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = kScoreWarps;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTilePages = 16;                   // what a warp scores at once
constexpr int kStepPages = kWarps * kTilePages;  // what a CTA scores at once
// CTAs a multiprocessor that launch bounds leave registers for: into 128 of them the compiler does not fit the loop for
// sm_120.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kMinCtas = 1;
#else
constexpr int kMinCtas = 2;
#endif
constexpr int kMaxGroup = 8;              // query heads a KV head
constexpr float kLeastExponent = -86.6f;  // exp = 2^-125; less weighs nothing

__device__ __forceinline__ float MinusInfinity() {
  return __int_as_float(0xff800000);
}

// exp(logit - max); 0 for NaN.
__device__ __forceinline__ float Weight(float logit, float max) {
  const float exponent = logit - max;
  return exponent > kLeastExponent ? __expf(exponent) : 0.0f;
}

using Steps = StreamSteps<kThreads, kStepPages>;
using Position = Steps::Position;

// What the CTAs of one stream share.
struct Stream {
  Stream() = default;
  __device__ Stream(const ScoreSummariesParams& p, const Scratch& scratch, const Position& at)
      : group(p.tables.geometry.group()), pages(at.pages), stride(p.tables.geometry.max_pages()) {
    const KvGeometry& g = p.tables.geometry;
    const int64_t first_q_head = int64_t{at.place} * g.num_q_heads + int64_t{at.head} * group;
    logits = p.logits + first_q_head * stride;
    tile_stride = CeilDiv(stride, kTilePages);
    tiles = reinterpret_cast<float2*>(scratch.partials) + first_q_head * tile_stride;
  }

  int32_t group;
  int32_t pages;        // that are scored
  int32_t stride;       // of logits, from one query head to the next; likewise
  int32_t tile_stride;  // of tiles
  float* logits;        // [group][stride]
  float2* tiles;        // [group][tile_stride]: maximum, sum of exponentials
};

template <typename QueriesShared>
struct Shared {
  Steps steps;
  QueriesShared queries;
  Stream stream;                                 // that is being scored
  int32_t end;                                   // of its pages, for this CTA
  float max_of[kMaxGroup], scale_of[kMaxGroup];  // of each query head of a stream
};

// The summaries of one stream. A record may hold more than is scored, behind it.
class Summaries {
 public:
  __device__ Summaries(const ScoreSummariesParams& p, const Position& at) : pages_(at.pages) {
    const KvGeometry& g = p.tables.geometry;
    directory_ = p.tables.summary_dir + g.DirIndex(at.row, p.layer, 0);
    shift_ = __ffs(g.extent_partitions()) - 1;
    bytes_ = static_cast<int32_t>(g.summary_bytes());
    extent_bytes_ = static_cast<int32_t>(g.summary_extent_bytes());
    of_head_ = static_cast<const char*>(p.tables.summaries) + (int64_t{at.head} * bytes_ << shift_);
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

 private:
  const int32_t* directory_;  // extents
  int32_t pages_;
  int32_t shift_;         // pages of an extent, a power of two
  int32_t bytes_;         // of a record
  int32_t extent_bytes_;  // of all heads
  const char* of_head_;   // of extent 0
};

// Logits and (maximum, sum) of the tile of pages page.. from what Queries::Score left.
__device__ __forceinline__ void FinishTile(const Stream& stream, int32_t page, float scale,
                                           float (&c)[4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int32_t low = page + lane / 4, high = low + 8;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int head = lane % 4 * 2 + i;
    const bool used = head < stream.group;
    float* logits = stream.logits + int64_t{head} * stream.stride;
    float a = MinusInfinity(), b = MinusInfinity();  // what absent pages weigh
    if (low < stream.pages) {
      a = c[i] * scale;
      if (used) logits[low] = a;
    }
    if (high < stream.pages) {
      b = c[i + 2] * scale;
      if (used) logits[high] = b;
    }
    float max = fmaxf(fmaxf(MinusInfinity(), a), b);  // never NaN
#pragma unroll
    for (int offset = 4; offset < kWarp; offset *= 2) {
      max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, offset));
    }
    float sum = Weight(a, max) + Weight(b, max);
#pragma unroll
    for (int offset = 4; offset < kWarp; offset *= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    if (lane < 4 && used) {
      stream.tiles[int64_t{head} * stream.tile_stride + page / kTilePages] = {max, sum};
    }
  }
}

// Scores the pages of a stream from step `at` on and before page `end`, a tile a warp. Both of a tile's halves of 8
// pages lie in one extent.
template <typename T, int kDim, SummaryKind kKind>
__device__ __forceinline__ void ScorePart(
    const ScoreSummariesParams& p, const Scratch& scratch, const Position& at, int32_t end,
    Shared<typename Queries<T, kDim, kKind>::Shared>& shared) {
  const KvGeometry& g = p.tables.geometry;
  if (threadIdx.x == 0) shared.stream = Stream(p, scratch, at);  // registers are for summaries
  const Stream& stream = shared.stream;
  constexpr float scale = kDim == 64 ? 0.125f : 0.0883883476f;  // 1 / sqrt(d)
  if (threadIdx.x == 0) shared.end = end;
  const Summaries summaries(p, at);
  const int32_t in_tile = static_cast<int32_t>(threadIdx.x % kWarp / 4);

  int32_t page = at.step * kStepPages + static_cast<int32_t>(threadIdx.x / kWarp) * kTilePages;
  int32_t low_extent = summaries.Extent(page), high_extent = summaries.Extent(page + 8);
  const T* q =
      static_cast<const T*>(p.qkv) + at.place * QkvWidth(g) + int64_t{at.head} * g.group() * kDim;
  const Queries<T, kDim, kKind> queries(q, g.group(), shared.queries);
  __syncthreads();
  for (; page < shared.end; page += kStepPages) {
    const char* low = summaries.At(page + in_tile, low_extent);
    const char* high = summaries.At(page + 8 + in_tile, high_extent);
    float c[4];
    queries.Score(low, high, c);
    if constexpr (kKind == SummaryKind::kClusters) {  // without tokens: its centroid says so
#pragma unroll
      for (float& logit : c) logit = isnan(logit) ? MinusInfinity() : logit;
    }
    low_extent = summaries.Extent(page + kStepPages);
    high_extent = summaries.Extent(page + kStepPages + 8);
    FinishTile(stream, page, scale, c);
  }
}

// Maximum and inverse sum of query head `warp` over all pages; every head has a warp. Tiles in a fixed order.
__device__ __forceinline__ void MergeTiles(const Stream& stream, float* max_of, float* scale_of) {
  const int head = static_cast<int>(threadIdx.x / kWarp);
  if (head >= stream.group) return;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const float2* tiles = stream.tiles + int64_t{head} * stream.tile_stride;
  const int32_t count = CeilDiv(stream.pages, kTilePages);
  constexpr int kHeld =
      8;  // of the first tiles, a lane: one way to memory for streams of 4,096 pages
  float2 held[kHeld];
  float max = MinusInfinity();
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int32_t at = lane + i * kWarp;
    held[i] = at < count ? __ldcg(tiles + at) : float2{MinusInfinity(), 0};
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) max = fmaxf(max, held[i].x);
#pragma unroll 4
  for (int32_t i = lane + kHeld * kWarp; i < count; i += kWarp) {
    max = fmaxf(max, __ldcg(tiles + i).x);
  }
  max = WarpMax(max);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) sum += held[i].y * Weight(held[i].x, max);
#pragma unroll 4
  for (int32_t i = lane + kHeld * kWarp; i < count; i += kWarp) {
    const float2 tile = __ldcg(tiles + i);
    sum += tile.y * Weight(tile.x, max);
  }
  sum = WarpSum(sum);
  if (lane == 0) {
    max_of[head] = max;
    scale_of[head] = 1.0f / sum;
  }
}

// Scores of pages page .. page + 3, as far as the stream has them.
__device__ __forceinline__ void StoreScores(float* scores, int32_t page, int32_t pages,
                                            const float (&score)[4]) {
  if (page + 4 <= pages) {
    *reinterpret_cast<float4*>(scores + page) = {score[0], score[1], score[2], score[3]};
    return;
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (page + i < pages) scores[page + i] = score[i];
  }
}

// Scores of all pages [max_pages] from the logits: twice four pages a thread, two heads at once. The order of heads
// and the comparisons are those of the CPU, so that NaN goes the same way: it weighs nothing, and marks an outlier
// where the summary is a mean. A cluster without tokens keeps its -infinity.
template <SummaryKind kKind>
__device__ __forceinline__ void WriteScores(const Stream& stream, float* scores, bool sum,
                                            const float* max_of, const float* scale_of) {
  constexpr int32_t kApart = 4 * kThreads;
  for (int32_t page = 4 * static_cast<int32_t>(threadIdx.x); page < stream.pages;
       page += 2 * kApart) {
    float score[2][4];
    for (int32_t first = 0; first < stream.group; first += 2) {
      float4 logits[2][2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float* of_head = stream.logits + int64_t{first + h} * stream.stride + page;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          if (first + h < stream.group && page + j * kApart < stream.pages) {
            logits[h][j] = __ldcg(reinterpret_cast<const float4*>(of_head + j * kApart));
          }
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (first + h >= stream.group) break;
        const float max = max_of[first + h], scale = scale_of[first + h];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float of_page[4] = {logits[h][j].x, logits[h][j].y, logits[h][j].z, logits[h][j].w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const bool empty = kKind == SummaryKind::kClusters && of_page[i] == MinusInfinity();
            if (first + h == 0) {
              const bool outlier = kKind == SummaryKind::kMean && isnan(of_page[i]);
              score[j][i] = outlier ? __int_as_float(0x7f800000) : empty ? MinusInfinity() : 0.0f;
            }
            if (empty) continue;
            const float share = Weight(of_page[i], max) * scale;
            if (sum) {
              score[j][i] += share > 0 ? share : 0.0f;
            } else if (share > score[j][i]) {
              score[j][i] = share;
            }
          }
        }
      }
    }
    StoreScores(scores, page, stream.pages, score[0]);
    if (page + kApart < stream.pages) StoreScores(scores, page + kApart, stream.pages, score[1]);
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

// The scores of a stream that is complete.
template <SummaryKind kKind, typename QueriesShared>
__device__ __forceinline__ void EndStream(const ScoreSummariesParams& p, const Scratch& scratch,
                                          const Position& at, Shared<QueriesShared>& shared) {
  const KvGeometry& g = p.tables.geometry;
  const Stream stream(p, scratch, at);
  MergeTiles(stream, shared.max_of, shared.scale_of);
  __syncthreads();
  float* scores = p.scores + (int64_t{at.place} * g.num_kv_heads + at.head) * g.max_pages();
  WriteScores<kKind>(stream, scores, p.reduction == GroupReduction::kSum, shared.max_of,
                     shared.scale_of);
}

// Floor: summaries read once (512 bytes a page of bounds at head dimension 128, 256 of a mean or a centroid), and 1/32
// or 1/16 of that written and read again as logits, out of L2. A warp has 8 or 4 KiB of summaries in flight, a
// multiprocessor with two CTAs 128 or 64 KiB: more than what the latency of HBM asks for, so that a CTA that changes
// streams leaves no gap.
// On top come the way to the first summary (rows, position, directory) and the end of the last stream, some 3 us each.
template <typename T, int kDim, SummaryKind kKind>
__global__ void __launch_bounds__(kThreads, kMinCtas)
    ScoreKernel(const ScoreSummariesParams p, const Scratch scratch, int32_t first_place) {
  __shared__ Shared<typename Queries<T, kDim, kKind>::Shared> shared;
  WaitForPredecessors();
  const KvGeometry& g = p.tables.geometry;
  const int32_t steps = shared.steps.Number(p.decode, g, first_place, [&](int32_t position) {
    return ScoredPages<kKind>(g, position) - p.unscored_last;
  });
  int32_t begin = Steps::FirstOf(blockIdx.x, steps);
  const int32_t end = Steps::FirstOf(blockIdx.x + 1, steps);
  while (begin < end) {  // a part of a stream after the other
    const Position at(shared.steps, begin);
    const int32_t part = min(at.steps - at.step, end - begin);
    ScorePart<T, kDim, kKind>(p, scratch, at, min((at.step + part) * kStepPages, at.pages), shared);
    begin += part;
    if (begin == end) AllowSuccessors();
    const Position done(shared.steps, begin - 1);  // rather than `at` kept in registers
    uint32_t* ticket = scratch.tickets + int64_t{done.place} * g.num_kv_heads + done.head;
    if (LastToArrive(ticket, static_cast<uint32_t>(part), static_cast<uint32_t>(done.steps))) {
      EndStream<kKind>(p, scratch, done, shared);
    }
  }
}

template <SummaryKind kKind>
auto KernelFor(const KvGeometry& g) {
  if (g.dtype == DType::kF32) {
    return g.head_dim == 64 ? ScoreKernel<float, 64, kKind> : ScoreKernel<float, 128, kKind>;
  }
  return g.head_dim == 64 ? ScoreKernel<Bf16, 64, kKind> : ScoreKernel<Bf16, 128, kKind>;
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
  SPIN_CHECK(g.group() >= 1 && g.group() <= kMaxGroup);
  SPIN_CHECK_EQ(g.extent_pages() % 8, 0);
  SPIN_CHECK(p.logits != nullptr);
  const int64_t tiles = CeilDiv<int64_t>(g.max_pages(), kTilePages);
  SPIN_CHECK_LE(2 * p.decode.max_batch * g.num_q_heads * tiles, kPartialFloats);
  SPIN_CHECK_LE(int64_t{p.decode.max_batch} * g.num_kv_heads, kTickets);
  if (p.decode.max_batch == 0) return;
  const auto kernel = clusters                         ? KernelFor<SummaryKind::kClusters>(g)
                      : p.kind == SummaryKind::kBounds ? KernelFor<SummaryKind::kBounds>(g)
                                                       : KernelFor<SummaryKind::kMean>(g);
  for (int32_t first = 0; first < p.decode.max_batch; first += Steps::kPlaces) {
    const int64_t streams = int64_t{p.decode.max_batch - first} * g.num_kv_heads;
    const int64_t blocks = std::min<int64_t>(2 * Traits().num_sms,  // one wave
                                             streams * CeilDiv(g.max_pages(), kStepPages));
    Launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, p, scratch,
           first);
  }
}

}  // namespace spin::cuda
