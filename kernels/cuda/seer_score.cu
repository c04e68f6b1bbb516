// SeerAttention-R's scores, in two kernels: the query group through the gate's weights, sixteen batch places at once;
// then its product with the summaries of each stream. The first hands over raw projections through scratch; every warp
// of the second normalises and rotates its stream's for itself. Neither depends on how the second is split: a row's
// scores are the same bits in every batch.
#include <algorithm>
#include <cmath>

#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/seer_gate.cuh"
#include "kernels/cuda/stream_steps.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTileRows = seer::kTileRows;
constexpr int kOutputs = 16;  // of a CTA of the first kernel
constexpr int kLoads = 8;     // 16-byte loads in flight a lane of the second
constexpr int kCtas = 2;      // of the second a multiprocessor

// The query heads of KV head `head` and of the CTA's batch places as they were before rotation, rounded to T. A warp
// takes a query head at a time.
template <typename T, int kDim>
__device__ __forceinline__ void GatherQueries(const SeerScoreParams& p, int32_t head,
                                              int32_t first_place, int32_t places, T* tile) {
  using Part = seer::HeadPart<T, kDim>;
  constexpr int kPer = Part::kPer;
  const KvGeometry& g = p.tables.geometry;
  const int32_t group = g.group();
  const int stride = seer::TileStride<T>(group * kDim);
  const float inverse = InverseMagnitude(p.rope_table);
  for (int32_t i = static_cast<int32_t>(threadIdx.x / kWarp); i < places * group; i += kWarps) {
    const int32_t place = first_place + i / group, h = i % group;
    const int32_t position = p.decode.position[p.decode.rows[place]];
    const T* q =
        static_cast<const T*>(p.qkv) + place * QkvWidth(g) + (int64_t{head} * group + h) * kDim;
    Part part;
    part.Load(q, p.rope_table + int64_t{position} * kDim);
    float x[2][kPer];
    part.RotateBack(inverse, x);
    T* to = tile + i / group * stride + h * kDim + kPer * (threadIdx.x % kWarp);
#pragma unroll
    for (int c = 0; c < kPer; ++c) {
      to[c] = FromFloat<T>(x[0][c]);
      to[kDim / 2 + c] = FromFloat<T>(x[1][c]);
    }
  }
}

// Sixteen outputs of one KV head for sixteen of the places from `first` on; the warps share the inputs. Floor: the
// weights read once, from HBM or L2, and a few hundred steps of latency.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 2)
    ProjectKernel(const SeerScoreParams p, float* projected, int32_t first) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  __shared__ float partial[kWarps][kTileRows][kOutputs + 1];
  T* tile = reinterpret_cast<T*>(shared_bytes);
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int32_t first_place = first + static_cast<int32_t>(blockIdx.z) * kTileRows;
  const int32_t places = min(kTileRows, NumRows(p.decode) - first_place);
  if (places <= 0) return;
  GatherQueries<T, kDim>(p, head, first_place, places, tile);
  __syncthreads();

  const int warp = static_cast<int>(threadIdx.x / kWarp), lane = threadIdx.x % kWarp;
  const int inputs = g.group() * kDim;
  const int share = CeilDiv(inputs / 32, kWarps) * 32;
  const int begin = min(warp * share, inputs), end = min(begin + share, inputs);
  const int first_output = static_cast<int>(blockIdx.x) * kOutputs;
  const T* weights =
      static_cast<const T*>(p.gate.wq) + (int64_t{head} * kDim + first_output) * inputs;
#pragma unroll
  for (int output = 0; output < kOutputs; output += 8) {
    float c[4] = {};
    seer::AddProducts(tile, weights + int64_t{output} * inputs, inputs, begin, end, c);
    const int row = lane / 4, column = output + 2 * (lane % 4);
    partial[warp][row][column] = c[0];
    partial[warp][row][column + 1] = c[1];
    partial[warp][row + 8][column] = c[2];
    partial[warp][row + 8][column + 1] = c[3];
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x) / kOutputs, column = threadIdx.x % kOutputs;
  static_assert(kThreads == kTileRows * kOutputs, "a thread an output");
  if (row >= places) return;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += partial[w][row][column];
  const int32_t in_scratch = first_place - first + row;
  projected[(int64_t{in_scratch} * g.num_kv_heads + head) * kDim + first_output + column] = sum;
}

// One 16-byte piece of qg / sqrt(d): lanes 0 .. kPieces - 1 hold a query, further lanes the same again.
template <typename T, int kDim>
class Query {
 public:
  static constexpr int kPer = kPieceElements<T>;
  static constexpr int kPieces = kDim / kPer;
  static_assert(kPieces >= kLoads && kPieces <= kWarp && kDim / 2 % kPer == 0);

  __device__ Query(const float* projected, const float* norm, const float* angles) {
    const int piece = static_cast<int>(threadIdx.x % kPieces);
    const bool upper = piece >= kPieces / 2;
    const int own = piece * kPer, other = (piece ^ (kPieces / 2)) * kPer;
    const int angle = piece % (kPieces / 2) * kPer;
    float squares = 0, partner[kPer];
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      values_[i] = __ldcg(projected + own + i);
      partner[i] = __ldcg(projected + other + i);
      squares += values_[i] * values_[i];
    }
    float scale = rsqrtf(static_cast<float>(kDim));
    if (norm != nullptr) scale *= rsqrtf(Sum(squares) / kDim + kSeerNormEps);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const float x = values_[i] * (norm != nullptr ? norm[own + i] : 1.0f) * scale;
      const float y = partner[i] * (norm != nullptr ? norm[other + i] : 1.0f) * scale;
      const float s = angles[kDim / 2 + angle + i];
      values_[i] = x * angles[angle + i] + (upper ? y * s : -y * s);
    }
  }

  // The product with the summary that the lanes of a query hold piece by piece, in each of them.
  __device__ float Times(const uint4& summary) const {
    float values[kPer];
    UnpackPiece<T>(summary, values);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPer; ++i) sum += values_[i] * values[i];
    return Sum(sum);
  }

 private:
  // Over kPieces neighbouring lanes.
  static __device__ float Sum(float value) {
#pragma unroll
    for (int offset = kPieces / 2; offset > 0; offset /= 2) {
      value += __shfl_xor_sync(kAllLanes, value, offset);
    }
    return value;
  }

  float values_[kPer];
};

// Pages that a warp, and a CTA, scores at once.
template <typename T, int kDim>
constexpr int kWarpPages = kLoads* kWarp / Query<T, kDim>::kPieces;
template <typename T, int kDim>
constexpr int kStepPages = kWarps* kWarpPages<T, kDim>;

// The summaries of one stream's pages before `end`, as a warp takes them: kWarpPages at once, from a multiple of that
// on, load i those of kAtOnce pages. Any eight of them from a multiple of eight on lie in one extent.
template <typename T, int kDim>
class WarpSummaries {
 public:
  static constexpr int kPieces = Query<T, kDim>::kPieces;
  static constexpr int kAtOnce = kWarp / kPieces;
  static constexpr int kEights = kWarpPages<T, kDim> / 8;
  static constexpr int kBytes = kDim * static_cast<int>(sizeof(T));  // of a record
  static_assert(8 % kAtOnce == 0 && kWarpPages<T, kDim> % 8 == 0);

  __device__ WarpSummaries(const SeerScoreParams& p, int32_t row, int32_t head, int32_t end)
      : end_(end) {
    const KvGeometry& g = p.tables.geometry;
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    directory_ = p.tables.summary_dir + g.DirIndex(row, p.layer, 0);
    shift_ = __ffs(g.extent_partitions()) - 1;
    extent_bytes_ = static_cast<int32_t>(g.summary_extent_bytes());
    of_lane_ = static_cast<const char*>(p.tables.summaries) + (int64_t{head} * kBytes << shift_) +
               lane / kPieces * kBytes + 16 * (lane % kPieces);
  }

  // The extents of each eight of the pages from `first` on.
  __device__ __forceinline__ void Find(int32_t first, int32_t (&extents)[kEights]) const {
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      const int32_t page = first + 8 * i;
      extents[i] = page < end_ ? directory_[page >> shift_] : kAbsent;
    }
  }
  // The lane's piece of the first summary that it takes of each eight.
  __device__ __forceinline__ void Locate(int32_t first, const int32_t (&extents)[kEights],
                                         const char* (&at)[kEights]) const {
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      const int32_t page = first + 8 * i;
      SPIN_DEVICE_CHECK(page >= end_ || extents[i] >= 0);
      at[i] =
          of_lane_ + int64_t{extents[i]} * extent_bytes_ + (page & ((1 << shift_) - 1)) * kBytes;
    }
  }
  // The lane's page of load i, and its piece of the summary; past the end zeros.
  static __device__ __forceinline__ int32_t Page(int32_t first, int i) {
    return first + i * kAtOnce + static_cast<int32_t>(threadIdx.x % kWarp) / kPieces;
  }
  __device__ __forceinline__ uint4 Load(int32_t first, int i, const char* (&at)[kEights]) const {
    if (Page(first, i) >= end_) return uint4{};
    return LoadOnce(at[i * kAtOnce / 8] + i * kAtOnce % 8 * kBytes);
  }

 private:
  const int32_t* directory_;  // extents
  const char* of_lane_;       // the lane's piece of its first page in extent 0
  int32_t end_;
  int32_t shift_;         // pages of an extent, a power of two
  int32_t extent_bytes_;  // of all heads
};

// Each CTA takes an equal range of the steps of all streams. Floor: the summaries read once (256 bytes a page at head
// dimension 128); with eight loads of 16 bytes a lane, two CTAs keep 64 KiB a multiprocessor in flight: a load is
// issued again as soon as it has been scored, and the first ones before the projections are there. What those read was
// written before the kernel of the projections began, which waited for it.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, kCtas)
    ScoreKernel(const SeerScoreParams p, const float* projected, int32_t first_place) {
  using Steps = StreamSteps<kThreads, kStepPages<T, kDim>>;
  using Summaries = WarpSummaries<T, kDim>;
  __shared__ Steps shared_steps;
  const KvGeometry& g = p.tables.geometry;
  const int32_t steps = shared_steps.Number(
      p.decode, g, first_place, [&](int32_t position) { return position / g.page_tokens; });
  typename Steps::Share share(shared_steps, steps);
  if (share.done()) WaitForPredecessors();
  const int piece = static_cast<int>(threadIdx.x % Summaries::kPieces);
  for (bool waited = false; !share.done(); waited = true) {
    const typename Steps::Part part = share.Next();
    const int32_t last = part.end;
    const Summaries summaries(p, part.row, part.head, last);
    int32_t first = part.begin + static_cast<int32_t>(threadIdx.x / kWarp) * kWarpPages<T, kDim>;
    int32_t extents[Summaries::kEights];
    const char* pieces[Summaries::kEights];
    uint4 loaded[kLoads];
    summaries.Find(first, extents);
    summaries.Locate(first, extents, pieces);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) loaded[i] = summaries.Load(first, i, pieces);
    summaries.Find(first + kStepPages<T, kDim>, extents);
    if (!waited) {
      WaitForPredecessors();
      AllowSuccessors();
    }
    const int64_t stream = int64_t{part.place} * g.num_kv_heads + part.head;
    const int64_t in_scratch = int64_t{part.place - first_place} * g.num_kv_heads + part.head;
    const Query<T, kDim> query(projected + in_scratch * kDim, p.gate.q_norm,
                               p.rope_table + int64_t{p.decode.position[part.row]} * kDim);
    float* scores = p.scores + stream * g.max_pages();
    for (; first < last; first += kStepPages<T, kDim>) {
      const int32_t next = first + kStepPages<T, kDim>;
      summaries.Locate(next, extents, pieces);
      float mine = 0;  // of the page whose load is the lane's piece
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const float score = query.Times(loaded[i]);
        loaded[i] = summaries.Load(next, i, pieces);
        if (piece == i) mine = score;
      }
      summaries.Find(next + kStepPages<T, kDim>, extents);
      const int32_t page = summaries.Page(first, piece);
      if (piece < kLoads && page < last) scores[page] = mine;
    }
  }
}

// The kernels take turns: places of one are as many as are numbered at once, and as scratch has room for the
// projections of.
template <typename T, int kDim>
void Enqueue(const SeerScoreParams& p, float* projected, cudaStream_t stream) {
  using Steps = StreamSteps<kThreads, kStepPages<T, kDim>>;
  const KvGeometry& g = p.tables.geometry;
  const auto heads = static_cast<unsigned>(g.num_kv_heads);
  const int64_t tile_bytes =
      kTileRows * int64_t{seer::TileStride<T>(g.group() * kDim)} * static_cast<int64_t>(sizeof(T));
  const int64_t room = kPartialFloats / (int64_t{g.num_kv_heads} * kDim) / kTileRows * kTileRows;
  SPIN_CHECK_GT(room, 0);
  const auto places = static_cast<int32_t>(std::min<int64_t>(Steps::kPlaces, room));
  SeerScoreParams some = p;  // as if the batch ended with them
  for (int32_t first = 0; first < p.decode.max_batch; first += places) {
    some.decode.max_batch = std::min(p.decode.max_batch, first + places);
    const auto tiles = static_cast<unsigned>(CeilDiv(some.decode.max_batch - first, kTileRows));
    Launch(ProjectKernel<T, kDim>, dim3(kDim / kOutputs, heads, tiles), dim3(kThreads),
           static_cast<size_t>(tile_bytes), stream, some, projected, first);
    Launch(ScoreKernel<T, kDim>, Steps::Grid(some.decode, g, first, kCtas), dim3(kThreads), 0,
           stream, some, projected, first);
  }
}

template <typename T>
void EnqueueFor(const SeerScoreParams& p, float* projected, cudaStream_t stream) {
  p.tables.geometry.head_dim == 64 ? Enqueue<T, 64>(p, projected, stream)
                                   : Enqueue<T, 128>(p, projected, stream);
}

}  // namespace

void SeerScore(const SeerScoreParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim);
  SPIN_CHECK_EQ(g.extent_partitions() % 8, 0);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(p.gate.wq != nullptr && p.rope_table != nullptr);
  if (p.decode.max_batch == 0) return;
  g.dtype == DType::kF32 ? EnqueueFor<float>(p, scratch.partials, stream)
                         : EnqueueFor<Bf16>(p, scratch.partials, stream);
}

}  // namespace spin::cuda
