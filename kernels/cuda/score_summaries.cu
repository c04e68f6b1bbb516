// Scores of pages from their summaries: products with the queries, softmax over pages, the group's maximum or sum.
//
// A stream (batch place, KV head) is split over several CTAs by pages. Each writes the logits of its pages and, for
// every tile of 16 pages and query head, (maximum, sum of exponentials); the last CTA to arrive merges those in a fixed
// order and turns logits into scores. Nothing of that depends on how the stream was split: a row's scores are the same
// bits in every batch.
#include <algorithm>

#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTilePages = 16;                   // what a warp scores at once
constexpr int kStepPages = kWarps * kTilePages;  // what a CTA scores at once
constexpr int kMaxGroup = 8;                     // query heads a KV head
constexpr float kLeastExponent = -86.6f;         // exp = 2^-125; less weighs nothing

__device__ __forceinline__ float MinusInfinity() {
  return __int_as_float(0xff800000);
}

// exp(logit - max); 0 for NaN.
__device__ __forceinline__ float Weight(float logit, float max) {
  const float exponent = logit - max;
  return exponent > kLeastExponent ? __expf(exponent) : 0.0f;
}

// The queries of a group, ready to score tiles of 16 summaries. Score leaves in lane l = 4 g + t the unscaled logits
//   c[0], c[1]: summary g     of query heads 2 t, 2 t + 1
//   c[2], c[3]: summary g + 8 likewise
// from the lane's two summaries `low` = g and `high` = g + 8; null: there is none, and its logits mean nothing.
template <typename T, int kDim, SummaryKind kKind>
class Queries;

// On tensor cores: the summaries are the 16 rows of a, the heads the 8 columns of b. A product does not care in which
// order k is gone through, so a lane's 16-byte pieces t, t + 4, t + 8... of its two summaries are fragments of a as
// they come from memory, and the same pieces of query head g the fragments of b that match them. For bounds a query has
// the shape of a summary: its positive part, then its negative one.
template <int kDim, SummaryKind kKind>
class Queries<Bf16, kDim, kKind> {
 public:
  __device__ Queries(const Bf16* q, int32_t heads) {
    const int head = static_cast<int>(threadIdx.x) % kWarp / 4;
    const uint4* pieces = reinterpret_cast<const uint4*>(q + head * kDim) + threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      const uint4 piece = head < heads ? pieces[4 * i] : uint4{};
      if constexpr (kKind == SummaryKind::kBounds) {
        const uint4 negative = {Negative(piece.x), Negative(piece.y), Negative(piece.z),
                                Negative(piece.w)};
        query_[i] = {piece.x ^ negative.x, piece.y ^ negative.y, piece.z ^ negative.z,
                     piece.w ^ negative.w};
        query_[i + kDim / 32] = negative;
      } else {
        query_[i] = piece;
      }
    }
  }

  __device__ void Score(const char* low, const char* high, float (&c)[4]) const {
    const int offset = 16 * static_cast<int>(threadIdx.x % 4);
    uint4 a[2][kPieces];  // all of the tile, in flight together
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      a[0][i] = low != nullptr ? LoadStreaming(low + offset + 64 * i) : uint4{};
      a[1][i] = high != nullptr ? LoadStreaming(high + offset + 64 * i) : uint4{};
    }
    float first[4] = {}, second[4] = {};  // two chains, half as long
#pragma unroll
    for (int i = 0; i < kPieces / 2; ++i) {
      Add(first, a[0][i], a[1][i], query_[i]);
      Add(second, a[0][i + kPieces / 2], a[1][i + kPieces / 2], query_[i + kPieces / 2]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = first[i] + second[i];
  }

 private:
  static constexpr int kPieces =
      (kKind == SummaryKind::kBounds ? 2 : 1) * kDim / 32;  // a lane, of a summary

  // The negative ones of two numbers, 0 for the others.
  static __device__ uint32_t Negative(uint32_t pair) {
    return pair & ((pair >> 15 & 0x00010001u) * 0xffffu);
  }
  static __device__ void Add(float (&c)[4], const uint4& low, const uint4& high, const uint4& q) {
    Multiply(c, low.x, high.x, low.y, high.y, q.x, q.y);
    Multiply(c, low.z, high.z, low.w, high.w, q.z, q.w);
  }

  uint4 query_[kPieces];
};

// Float32: the same lanes hold the same logits, each summed by its lane alone.
template <int kDim, SummaryKind kKind>
class Queries<float, kDim, kKind> {
 public:
  __device__ Queries(const float* q, int32_t heads) {
    const int head = 2 * static_cast<int>(threadIdx.x % 4);
    even_ = q + (head < heads ? head : 0) * kDim;
    odd_ = q + (head + 1 < heads ? head + 1 : 0) * kDim;
  }

  __device__ void Score(const char* low, const char* high, float (&c)[4]) const {
    c[0] = c[1] = c[2] = c[3] = 0;
    if (low != nullptr) Add(reinterpret_cast<const float*>(low), c[0], c[1]);
    if (high != nullptr) Add(reinterpret_cast<const float*>(high), c[2], c[3]);
  }

 private:
  __device__ void Add(const float* summary, float& even, float& odd) const {
    for (int i = 0; i < kDim; ++i) {
      even += Term(even_[i], summary + i);
      odd += Term(odd_[i], summary + i);
    }
  }
  static __device__ float Term(float q, const float* summary) {
    if constexpr (kKind == SummaryKind::kBounds) {
      return (q < 0 ? 0 : q) * summary[0] +
             (q > 0 ? 0 : q) * summary[kDim];  // 0 times infinity is NaN here, too
    } else {
      return q * summary[0];
    }
  }

  const float* even_;
  const float* odd_;
};

// What the CTAs of one stream share.
struct Stream {
  __device__ Stream(const ScoreSummariesParams& p, const Scratch& scratch, int32_t place,
                    int32_t head)
      : group(p.tables.geometry.group()), stride(p.tables.geometry.max_pages()) {
    const KvGeometry& g = p.tables.geometry;
    const int32_t row = p.decode.rows[place];
    pages = p.decode.position[row] / g.page_tokens + 1 - p.unscored_last;
    SPIN_DEVICE_CHECK(pages <= stride);
    directory = p.tables.summary_dir + g.DirIndex(row, p.layer, 0);
    first_q_head = int64_t{place} * g.num_q_heads + int64_t{head} * group;
    logits = p.logits + first_q_head * stride;
    tile_stride = CeilDiv(stride, kTilePages);
    tiles = reinterpret_cast<float2*>(scratch.partials) + first_q_head * tile_stride;
    scores = p.scores + (int64_t{place} * g.num_kv_heads + head) * stride;
  }

  int32_t group;
  int32_t pages;             // that are scored; may be none, or less
  int32_t stride;            // of logits, from one query head to the next; likewise
  int32_t tile_stride;       // of tiles
  int64_t first_q_head;      // counted over the batch
  const int32_t* directory;  // extents of summaries
  float* logits;             // [group][stride]
  float2* tiles;             // [group][tile_stride]: maximum, sum of exponentials
  float* scores;             // [pages]
};

// The summaries of one stream.
class Summaries {
 public:
  __device__ Summaries(const KvTables& t, const Stream& stream, int32_t head)
      : geometry_(t.geometry),
        stream_(stream),
        head_(head),
        pool_(static_cast<const char*>(t.summaries)) {}

  // Extent of page `page`, kAbsent past the last one.
  __device__ int32_t Extent(int32_t page) const {
    return page < stream_.pages ? stream_.directory[page / geometry_.extent_pages()] : kAbsent;
  }
  // Page `page`'s summary, given its extent; null past the last page.
  __device__ const char* At(int32_t page, int32_t extent) const {
    if (page >= stream_.pages) return nullptr;
    SPIN_DEVICE_CHECK(extent >= 0);
    return pool_ + geometry_.PageIndex(extent, head_, page % geometry_.extent_pages()) *
                       geometry_.summary_bytes();
  }

 private:
  const KvGeometry& geometry_;
  const Stream& stream_;
  const int32_t head_;
  const char* pool_;
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

// Scores pages [begin, end) of a stream, a tile a warp. Both of a tile's halves of 8 pages lie in one extent.
template <typename T, int kDim, SummaryKind kKind>
__device__ __forceinline__ void ScorePart(const ScoreSummariesParams& p, const Stream& stream,
                                          int32_t head, int32_t begin, int32_t end) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t place = static_cast<int32_t>(blockIdx.z);
  const T* q =
      static_cast<const T*>(p.qkv) + place * QkvWidth(g) + int64_t{head} * stream.group * kDim;
  const Queries<T, kDim, kKind> queries(q, stream.group);
  const float scale = rsqrtf(static_cast<float>(kDim));
  const Summaries summaries(p.tables, stream, head);
  const int32_t in_tile = static_cast<int32_t>(threadIdx.x % kWarp / 4);

  int32_t page = begin + static_cast<int32_t>(threadIdx.x / kWarp) * kTilePages;
  int32_t low_extent = summaries.Extent(page), high_extent = summaries.Extent(page + 8);
  for (; page < end; page += kStepPages) {
    const char* low = summaries.At(page + in_tile, low_extent);
    const char* high = summaries.At(page + 8 + in_tile, high_extent);
    low_extent = summaries.Extent(page + kStepPages);
    high_extent = summaries.Extent(page + kStepPages + 8);
    float c[4];
    queries.Score(low, high, c);
    FinishTile(stream, page, scale, c);
  }
}

// Whether this CTA is the last of `arrivals` to get here; then it sees what the others wrote, and the ticket is zero.
__device__ __forceinline__ bool LastToArrive(uint32_t* ticket, uint32_t arrivals) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1u) == arrivals - 1;
    if (last) *ticket = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// Maximum and inverse sum of query head `warp` over all pages; every head has a warp. Tiles in a fixed order.
__device__ __forceinline__ void MergeTiles(const Stream& stream, float* max_of, float* scale_of) {
  const int head = static_cast<int>(threadIdx.x / kWarp);
  if (head >= stream.group) return;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const float2* tiles = stream.tiles + int64_t{head} * stream.tile_stride;
  const int32_t count = CeilDiv(stream.pages, kTilePages);
  float max = MinusInfinity();
#pragma unroll 4
  for (int32_t i = lane; i < count; i += kWarp) max = fmaxf(max, __ldcg(tiles + i).x);
  max = WarpMax(max);
  float sum = 0;
#pragma unroll 4
  for (int32_t i = lane; i < count; i += kWarp) {
    const float2 tile = __ldcg(tiles + i);
    sum += tile.y * Weight(tile.x, max);
  }
  sum = WarpSum(sum);
  if (lane == 0) {
    max_of[head] = max;
    scale_of[head] = 1.0f / sum;
  }
}

// Scores of all pages from the logits: four pages a thread. The order of heads and the comparisons are those of the
// CPU, so that NaN goes the same way: it weighs nothing, and marks an outlier where the summary is a mean.
template <SummaryKind kKind>
__device__ __forceinline__ void WriteScores(const Stream& stream, bool sum, const float* max_of,
                                            const float* scale_of) {
#pragma unroll 2
  for (int32_t page = 4 * static_cast<int32_t>(threadIdx.x); page < stream.pages;
       page += 4 * kThreads) {
    float4 logits[kMaxGroup];
#pragma unroll
    for (int h = 0; h < kMaxGroup; ++h) {
      if (h < stream.group) {
        logits[h] = __ldcg(
            reinterpret_cast<const float4*>(stream.logits + int64_t{h} * stream.stride + page));
      }
    }
    float score[4];
#pragma unroll
    for (int h = 0; h < kMaxGroup; ++h) {
      if (h < stream.group) {
        const float of_head[4] = {logits[h].x, logits[h].y, logits[h].z, logits[h].w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (h == 0) {
            const bool outlier = kKind == SummaryKind::kMean && isnan(of_head[i]);
            score[i] = outlier ? __int_as_float(0x7f800000) : 0.0f;
          }
          const float share = Weight(of_head[i], max_of[h]) * scale_of[h];
          if (sum) {
            score[i] += share > 0 ? share : 0.0f;
          } else if (share > score[i]) {
            score[i] = share;
          }
        }
      }
    }
    if (page + 4 <= stream.pages) {
      *reinterpret_cast<float4*>(stream.scores + page) = {score[0], score[1], score[2], score[3]};
    } else {
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        if (page + i < stream.pages) stream.scores[page + i] = score[i];
      }
    }
  }
}

// Floor: summaries read once (512 bytes a page of bounds at head dimension 128, 256 of a mean), and 1/32 or 1/16 of
// that written and read again as logits, out of L2. A warp has 8 or 4 KiB of summaries in flight, a multiprocessor with
// two CTAs 128 or 64 KiB: more than what the latency of HBM asks for, so that the end of one CTA and the start of the
// next leave no gap.
template <typename T, int kDim, SummaryKind kKind>
__global__ void __launch_bounds__(kThreads, 2)
    ScoreKernel(const ScoreSummariesParams p, const Scratch scratch) {
  __shared__ float max_of[kMaxGroup], scale_of[kMaxGroup];
  WaitForPredecessors();
  const auto head = static_cast<int32_t>(blockIdx.y);
  const auto place = static_cast<int32_t>(blockIdx.z);
  if (place >= NumRows(p.decode)) return;
  const Stream stream(p, scratch, place, head);
  if (stream.pages <= 0) return;
  const int32_t part = RoundUp(CeilDiv(stream.pages, static_cast<int32_t>(gridDim.x)), kStepPages);
  const int32_t parts = CeilDiv(stream.pages, part);
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * part;
  if (begin >= stream.pages) return;
  ScorePart<T, kDim, kKind>(p, stream, head, begin, min(begin + part, stream.pages));
  AllowSuccessors();
  uint32_t* ticket = scratch.tickets + int64_t{place} * gridDim.y + head;
  if (!LastToArrive(ticket, static_cast<uint32_t>(parts))) return;
  MergeTiles(stream, max_of, scale_of);
  __syncthreads();
  WriteScores<kKind>(stream, p.reduction == GroupReduction::kSum, max_of, scale_of);
}

// CTAs a stream: enough to fill the machine four times over, so that streams of unequal length even out, but none
// without a tile for each warp.
int64_t Parts(const ScoreSummariesParams& p) {
  const KvGeometry& g = p.tables.geometry;
  const int64_t streams = int64_t{p.decode.max_batch} * g.num_kv_heads;
  const int64_t wanted = CeilDiv<int64_t>(4 * 2 * Traits().num_sms, streams);
  return std::min(wanted, CeilDiv<int64_t>(g.max_pages(), kStepPages));
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
  const bool bounds = p.kind == SummaryKind::kBounds;
  SPIN_CHECK_EQ(g.summary_elements, (bounds ? 2 : 1) * g.head_dim);
  SPIN_CHECK_GE(p.unscored_last, 0);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.group() >= 1 && g.group() <= kMaxGroup);
  SPIN_CHECK_EQ(g.extent_pages() % 8, 0);
  SPIN_CHECK(p.logits != nullptr);
  const int64_t tiles = CeilDiv<int64_t>(g.max_pages(), kTilePages);
  SPIN_CHECK_LE(2 * p.decode.max_batch * g.num_q_heads * tiles, kPartialFloats);
  SPIN_CHECK_LE(int64_t{p.decode.max_batch} * g.num_kv_heads, kTickets);
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(Parts(p)), static_cast<unsigned>(g.num_kv_heads),
                  static_cast<unsigned>(p.decode.max_batch));
  const auto kernel =
      bounds ? KernelFor<SummaryKind::kBounds>(g) : KernelFor<SummaryKind::kMean>(g);
  Launch(kernel, grid, dim3(kThreads), 0, stream, p, scratch);
}

}  // namespace spin::cuda
