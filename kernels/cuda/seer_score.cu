// SeerAttention-R's scores, in two kernels: the query group through the gate's weights, sixteen batch places at once;
// then its product with the summaries of each stream. The first hands over raw projections through scratch; every warp
// of the second normalises and rotates its stream's for itself. Neither depends on how the second is split: a row's
// scores are the same bits in every batch.
#include <algorithm>
#include <cmath>

#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/seer_gate.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTileRows = seer::kTileRows;
constexpr int kOutputs = 16;  // of a CTA of the first kernel
constexpr int kLoads = 8;     // 16-byte loads in flight a lane of the second

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

// Sixteen outputs of one KV head for sixteen batch places; the warps share the inputs. Floor: the weights read once,
// from HBM or L2, and a few hundred steps of latency.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 2)
    ProjectKernel(const SeerScoreParams p, float* projected) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  __shared__ float partial[kWarps][kTileRows][kOutputs + 1];
  T* tile = reinterpret_cast<T*>(shared_bytes);
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int32_t first_place = static_cast<int32_t>(blockIdx.z) * kTileRows;
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
  projected[(int64_t{first_place + row} * g.num_kv_heads + head) * kDim + first_output + column] =
      sum;
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

// A CTA takes a range of one stream's pages. Floor: the summaries read once (256 bytes a page at head dimension 128);
// with eight loads of 16 bytes a lane, three CTAs keep 96 KiB a multiprocessor in flight.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 3)
    ScoreKernel(const SeerScoreParams p, const float* projected) {
  constexpr int kPieces = Query<T, kDim>::kPieces;
  constexpr int kAtOnce = kWarp / kPieces;  // pages of one load of a warp
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const auto head = static_cast<int32_t>(blockIdx.y);
  const auto place = static_cast<int32_t>(blockIdx.z);
  if (place >= NumRows(p.decode)) return;
  const int32_t row = p.decode.rows[place];
  const int32_t position = p.decode.position[row];
  const int32_t pages = position / g.page_tokens;
  SPIN_DEVICE_CHECK(pages < g.max_pages());
  const int32_t part =
      RoundUp(CeilDiv(pages, static_cast<int32_t>(gridDim.x)), kStepPages<T, kDim>);
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * part;
  const int32_t end = min(begin + part, pages);
  if (begin >= end) return;

  const int64_t stream_index = int64_t{place} * g.num_kv_heads + head;
  const Query<T, kDim> query(projected + stream_index * kDim, p.gate.q_norm,
                             p.rope_table + int64_t{position} * kDim);
  const StreamView stream(p.tables, row, p.layer, head);
  const char* summaries = static_cast<const char*>(p.tables.summaries);
  float* scores = p.scores + stream_index * g.max_pages();
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int piece = lane % kPieces, of_load = lane / kPieces;
  int32_t first = begin + static_cast<int32_t>(threadIdx.x / kWarp) * kWarpPages<T, kDim>;
  for (; first < end; first += kStepPages<T, kDim>) {
    uint4 loaded[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int32_t page = first + i * kAtOnce + of_load;
      loaded[i] = uint4{};
      if (page < end) {
        loaded[i] =
            LoadStreaming(summaries + stream.Summary(page) * g.summary_bytes() + 16 * piece);
      }
    }
    float mine = 0;  // of the page whose load is the lane's piece
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const float score = query.Times(loaded[i]);
      if (piece == i) mine = score;
    }
    const int32_t page = first + piece * kAtOnce + of_load;
    if (piece < kLoads && page < end) scores[page] = mine;
  }
}

// CTAs a stream: enough to fill the machine four times over, so that streams of unequal length even out, but none
// without a page for each warp.
template <typename T, int kDim>
int64_t Parts(const SeerScoreParams& p) {
  const KvGeometry& g = p.tables.geometry;
  const int64_t streams = int64_t{p.decode.max_batch} * g.num_kv_heads;
  const int64_t wanted = CeilDiv<int64_t>(4 * 3 * Traits().num_sms, streams);
  return std::min(wanted, CeilDiv<int64_t>(g.max_pages(), kStepPages<T, kDim>));
}

template <typename T, int kDim>
void Enqueue(const SeerScoreParams& p, float* projected, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const auto heads = static_cast<unsigned>(g.num_kv_heads);
  const int64_t tile_bytes =
      kTileRows * int64_t{seer::TileStride<T>(g.group() * kDim)} * static_cast<int64_t>(sizeof(T));
  Launch(
      ProjectKernel<T, kDim>,
      dim3(kDim / kOutputs, heads, static_cast<unsigned>(CeilDiv(p.decode.max_batch, kTileRows))),
      dim3(kThreads), static_cast<size_t>(tile_bytes), stream, p, projected);
  Launch(ScoreKernel<T, kDim>,
         dim3(static_cast<unsigned>(Parts<T, kDim>(p)), heads,
              static_cast<unsigned>(p.decode.max_batch)),
         dim3(kThreads), 0, stream, p, projected);
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
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(p.gate.wq != nullptr && p.rope_table != nullptr);
  SPIN_CHECK_LE(int64_t{p.decode.max_batch} * g.num_kv_heads * g.head_dim, kPartialFloats);
  if (p.decode.max_batch == 0) return;
  g.dtype == DType::kF32 ? EnqueueFor<float>(p, scratch.partials, stream)
                         : EnqueueFor<Bf16>(p, scratch.partials, stream);
}

}  // namespace spin::cuda
