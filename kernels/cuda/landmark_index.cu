// ShadowKV's summaries: the mean of a page's keys, and which pages it stands for so badly that they are always attended
// to.
//
// Landmarks are bit for bit those of kernels/cpu/landmark_index.cc: keys are added in token order, the division is by a
// power of two. How well they stand for their pages is arithmetic in another order; near ties may mark another page.
#include <algorithm>
#include <cfloat>

#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/stream_view.cuh"
#include "kernels/cuda/top_scores.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDecodeThreads = 128;
constexpr float kInverse = 1.0f / kLandmarkTokens;  // exact

// One column of a page: the same 16 bytes of each of its keys.
template <typename T>
struct Column {
  static constexpr int kChannels = kPieceElements<T>;

  // In token order.
  __device__ __forceinline__ void Sum(float (&sum)[kChannels]) const {
    UnpackPiece<T>(key[0], sum);
#pragma unroll
    for (int t = 1; t < kLandmarkTokens; ++t) {
      float k[kChannels];
      UnpackPiece<T>(key[t], k);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sum[c] += k[c];
    }
  }

  uint4 key[kLandmarkTokens];
};

template <typename T>
__device__ __forceinline__ uint4 Mean(const float (&sum)[kPieceElements<T>]) {
  float mean[kPieceElements<T>];
#pragma unroll
  for (int c = 0; c < kPieceElements<T>; ++c) mean[c] = sum[c] * kInverse;
  return RoundToPiece<T>(mean);
}

__device__ __forceinline__ char* LandmarkAt(const KvTables& t, int32_t row, int32_t layer,
                                            int32_t head, int32_t page) {
  return static_cast<char*>(t.summaries) +
         StreamView(t, row, layer, head).Summary(page) * t.geometry.summary_bytes();
}

// The sum over the kLanes lanes that share a page, in each of them.
template <int kLanes>
__device__ __forceinline__ float PageSum(float value) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const unsigned mask =
      kLanes == kWarp ? kAllLanes : ((1u << kLanes % kWarp) - 1) << lane / kLanes * kLanes;
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(mask, value, offset);
  }
  return value;
}

// -min over the keys of cosine(key, mean) of the page whose columns kLanes lanes hold; 0 for zero vectors.
template <typename T, int kLanes>
__device__ __forceinline__ float Spread(const Column<T>& column,
                                        const float (&sum)[kPieceElements<T>]) {
  float sum_square = 0;
#pragma unroll
  for (int c = 0; c < kPieceElements<T>; ++c) sum_square += sum[c] * sum[c];
  float least = FLT_MAX;
#pragma unroll
  for (int t = 0; t < kLandmarkTokens; ++t) {
    float key[kPieceElements<T>];
    UnpackPiece<T>(column.key[t], key);
    float dot = 0, square = 0;
#pragma unroll
    for (int c = 0; c < kPieceElements<T>; ++c) {
      dot += key[c] * sum[c];
      square += key[c] * key[c];
    }
    dot = PageSum<kLanes>(dot);
    square = PageSum<kLanes>(square);
    least = fminf(least, dot * rsqrtf(fmaxf(square, FLT_MIN)));
  }
  return -least * rsqrtf(fmaxf(PageSum<kLanes>(sum_square), FLT_MIN));
}

// A thread holds one 16-byte column of a page's eight keys, in flight together; the lanes of a page are neighbours in
// one warp, so that they read whole keys. Columns of all pages of all slices form one sequence that the grid strides
// over, since how many there are is known on the device only. Floor: the keys read once, 1/8 of them written.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(const LandmarkIndexPrefillParams p) {
  constexpr int kColumns = kDim / kPieceElements<T>;
  static_assert(kColumns <= kWarp && kWarp % kColumns == 0);
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const StagingView staging(p.staging, g);
  const int32_t stride = static_cast<int32_t>(gridDim.x) * kThreads;
  int32_t next = static_cast<int32_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice slice = p.slices[s];
    const int32_t pages = (slice.prefix_tokens + slice.num_tokens) / kLandmarkTokens;
    SPIN_DEVICE_CHECK(slice.page_begin >= 0 && slice.page_begin + pages <= p.staging.num_pages);
    const int32_t items = g.num_kv_heads * pages * kColumns;
    for (; next < items; next += stride) {
      const int32_t lane = next % kColumns;
      const int32_t page = next / kColumns % pages;
      const int32_t head = next / kColumns / pages;
      const char* keys =
          staging.Key(head, int64_t{slice.page_begin + page} * kLandmarkTokens) + 16 * lane;
      Column<T> column;
#pragma unroll
      for (int t = 0; t < kLandmarkTokens; ++t) {
        column.key[t] = *reinterpret_cast<const uint4*>(keys + t * staging.token_bytes);
      }
      float sum[kPieceElements<T>];
      column.Sum(sum);
      char* landmark = LandmarkAt(p.tables, slice.row, p.layer, head, page);
      *reinterpret_cast<uint4*>(landmark + 16 * lane) = Mean<T>(sum);
      const float spread = Spread<T, kColumns>(column, sum);
      if (lane == 0) {
        p.spread[int64_t{head} * RoundUp(p.staging.num_pages, 4) + slice.page_begin + page] =
            spread;
      }
    }
    next -= items;  // counted from the next slice's first column
  }
}

// One CTA a stream: marks the pages of the greatest spreads. Latency alone, and little of it beside a layer's products.
template <typename T>
__global__ void __launch_bounds__(top_scores::kThreads)
    MarkKernel(const LandmarkIndexPrefillParams p) {
  __shared__ top_scores::Shared shared;
  shared.Clear();
  WaitForPredecessors();
  AllowSuccessors();
  const auto head = static_cast<int32_t>(blockIdx.x);
  const PrefillSlice slice = p.slices[blockIdx.y];
  const int32_t pages = (slice.prefix_tokens + slice.num_tokens) / kLandmarkTokens;
  const int32_t candidates = max(pages - p.local_pages, 0);
  const int32_t outliers = min(p.outlier_pages, candidates);
  if (outliers == 0) return;
  // The slice's spreads begin anywhere; selection reads from a multiple of four on.
  const int32_t skipped = slice.page_begin % 4;
  __shared__ int32_t row, begin;  // of the candidates; registers are for their scores
  if (threadIdx.x == 0) {
    row = slice.row;
    begin = skipped;
  }
  const float* spread =
      p.spread + int64_t{head} * RoundUp(p.staging.num_pages, 4) + slice.page_begin - skipped;
  const top_scores::Candidates from = {spread, skipped, skipped + candidates};
  top_scores::ForEachTop(from, outliers, shared, [&](int32_t, int32_t id) {
    char* landmark =
        LandmarkAt(p.tables, row, p.layer, static_cast<int32_t>(blockIdx.x), id - begin);
    if constexpr (sizeof(T) == 4) {
      *reinterpret_cast<uint32_t*>(landmark) = 0x7fc00000;  // the quiet NaN of either type
    } else {
      *reinterpret_cast<uint16_t*>(landmark) = 0x7fc0;
    }
  });
}

// One thread a column of a stream whose new token completes a page, one step in eight.
template <typename T>
__global__ void __launch_bounds__(kDecodeThreads) DecodeKernel(const LandmarkIndexDecodeParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const int32_t columns = g.head_dim / kPieceElements<T>;
  const int32_t item = static_cast<int32_t>(blockIdx.x) * kDecodeThreads + threadIdx.x;
  const int32_t lane = item % columns;
  const int32_t head = item / columns % g.num_kv_heads;
  const int32_t place = item / columns / g.num_kv_heads;
  if (place >= NumRows(p.decode)) return;
  const int32_t row = p.decode.rows[place];
  const int32_t position = p.decode.position[row];
  if (position % kLandmarkTokens != kLandmarkTokens - 1) return;
  const int32_t page = position / kLandmarkTokens;
  const StreamView stream(p.tables, row, p.layer, head);
  const T* keys = reinterpret_cast<const T*>(stream.PageBytes(page)) + lane * kPieceElements<T>;
  const T* newest = KeyOf<T>(p.qkv, g, place, head) + lane * kPieceElements<T>;
  Column<T> column;
#pragma unroll
  for (int t = 0; t < kLandmarkTokens - 1; ++t) {
    column.key[t] = *reinterpret_cast<const uint4*>(keys + g.KeyOffset(t));
  }
  column.key[kLandmarkTokens - 1] = *reinterpret_cast<const uint4*>(newest);
  float sum[kPieceElements<T>];
  column.Sum(sum);
  char* landmark = LandmarkAt(p.tables, row, p.layer, head, page);
  *reinterpret_cast<uint4*>(landmark + 16 * lane) = Mean<T>(sum);
}

void CheckGeometry(const KvGeometry& g) {
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK_EQ(g.page_tokens, kLandmarkTokens);
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim + g.key_piece());
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
}

// Columns of a page, in 16-byte pieces of its keys.
int64_t Columns(const KvGeometry& g) {
  return g.head_dim * SizeOf(g.dtype) / 16;
}

auto PrefillKernelFor(const KvGeometry& g) {
  if (g.dtype == DType::kF32) {
    return g.head_dim == 64 ? PrefillKernel<float, 64> : PrefillKernel<float, 128>;
  }
  return g.head_dim == 64 ? PrefillKernel<Bf16, 64> : PrefillKernel<Bf16, 128>;
}

}  // namespace

void LandmarkIndexPrefill(const LandmarkIndexPrefillParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  CheckGeometry(g);
  SPIN_CHECK(p.outlier_pages >= 0 && p.local_pages >= 0 && p.spread != nullptr);
  const int64_t most = int64_t{g.num_kv_heads} * p.staging.num_pages * Columns(g);
  SPIN_CHECK_LT(most, int64_t{1} << 30);  // with a stride of the grid added, indices fit int32
  const int64_t blocks = std::min<int64_t>(CeilDiv<int64_t>(most, kThreads), 6 * Traits().num_sms);
  if (p.num_slices == 0 || blocks == 0) return;
  Launch(PrefillKernelFor(g), dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, p);
  if (p.outlier_pages == 0) return;
  const auto mark = g.dtype == DType::kF32 ? MarkKernel<float> : MarkKernel<Bf16>;
  const dim3 grid(static_cast<unsigned>(g.num_kv_heads), static_cast<unsigned>(p.num_slices));
  Launch(mark, grid, dim3(top_scores::kThreads), 0, stream, p);
}

void LandmarkIndexDecode(const LandmarkIndexDecodeParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  CheckGeometry(g);
  const int64_t items = int64_t{p.decode.max_batch} * g.num_kv_heads * Columns(g);
  if (items == 0) return;
  const auto kernel = g.dtype == DType::kF32 ? DecodeKernel<float> : DecodeKernel<Bf16>;
  Launch(kernel, dim3(static_cast<unsigned>(CeilDiv<int64_t>(items, kDecodeThreads))),
         dim3(kDecodeThreads), 0, stream, p);
}

}  // namespace spin::cuda
