// SeerAttention-R's summaries: the gate's view of a complete page's keys.
//
// A CTA makes the summaries of up to sixteen pages of one KV head: each warp pools the keys of two of them into shared
// memory, rotating them back on the way; then the sixteen pooled vectors are projected together, and each warp
// normalises, rotates and stores two results. Prefill and decode differ in where a page's keys lie.
#include <algorithm>

#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/seer_gate.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTileRows = seer::kTileRows;
constexpr int kRowsPerWarp = kTileRows / kWarps;
constexpr int kBatch = 8;  // keys in flight a warp; divides the tokens of a page

template <typename T>
struct Page {
  const T* keys = nullptr;    // of all tokens but the last, one behind the other; null: no page
  const T* newest = nullptr;  // of the last
  T* summary = nullptr;
  int32_t position = 0;  // of its first token
};

template <typename T, int kDim>
struct Shared {
  static constexpr int kInputs = 3 * kDim;
  static constexpr int kStride = seer::TileStride<T>(kInputs);
  alignas(16) T pooled[kTileRows * kStride];
  float projected[kTileRows][kDim + 4];
};

// Maximum, minimum and mean of a page's keys to `pooled`, rounded to T.
template <typename T, int kDim>
__device__ __forceinline__ void PoolPage(const Page<T>& page, int32_t tokens, const float* table,
                                         T* pooled) {
  using Part = seer::HeadPart<T, kDim>;
  constexpr int kPer = Part::kPer;
  const float inverse = InverseMagnitude(table);
  const float* angles = table + int64_t{page.position} * kDim;
  float max[2][kPer], min[2][kPer], sum[2][kPer];
  for (int32_t begin = 0; begin < tokens; begin += kBatch) {
    Part part[kBatch];
#pragma unroll
    for (int t = 0; t < kBatch; ++t) {
      const int32_t token = begin + t;
      const T* key = token == tokens - 1 ? page.newest : page.keys + token * kDim;
      part[t].Load(key, angles + token * kDim);
    }
#pragma unroll
    for (int t = 0; t < kBatch; ++t) {
      float x[2][kPer];
      part[t].RotateBack(inverse, x);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < kPer; ++i) {
          const bool first = t == 0 && begin == 0;
          max[half][i] = first ? x[half][i] : fmaxf(max[half][i], x[half][i]);
          min[half][i] = first ? x[half][i] : fminf(min[half][i], x[half][i]);
          sum[half][i] = first ? x[half][i] : sum[half][i] + x[half][i];
        }
      }
    }
  }
  const float scale = 1.0f / static_cast<float>(tokens);  // exact: a power of two
  T* to = pooled + kPer * (threadIdx.x % kWarp);
#pragma unroll
  for (int half = 0; half < 2; ++half, to += kDim / 2) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      to[i] = FromFloat<T>(max[half][i]);
      to[kDim + i] = FromFloat<T>(min[half][i]);
      to[2 * kDim + i] = FromFloat<T>(sum[half][i] * scale);
    }
  }
}

// All rows of the tile times the weights of KV head `head`, whole CTA.
template <typename T, int kDim>
__device__ __forceinline__ void ProjectTile(const SeerGate& gate, int32_t head,
                                            Shared<T, kDim>& shared) {
  constexpr int kInputs = Shared<T, kDim>::kInputs;
  const int warp = static_cast<int>(threadIdx.x / kWarp), lane = threadIdx.x % kWarp;
  const T* weights = static_cast<const T*>(gate.wk) + int64_t{head} * kDim * kInputs;
#pragma unroll
  for (int tile = 0; tile < kDim / 8 / kWarps; ++tile) {
    const int output = 8 * (warp + tile * kWarps);
    float c[4] = {};
    seer::AddProducts(shared.pooled, weights + int64_t{output} * kInputs, kInputs, 0, kInputs, c);
    const int row = lane / 4, column = output + 2 * (lane % 4);
    shared.projected[row][column] = c[0];
    shared.projected[row][column + 1] = c[1];
    shared.projected[row + 8][column] = c[2];
    shared.projected[row + 8][column + 1] = c[3];
  }
}

// One projected row, normalised and rotated, to the page's summary. One warp.
template <typename T, int kDim>
__device__ __forceinline__ void StoreSummary(const Page<T>& page, const float* norm,
                                             const float* table, const float* projected) {
  constexpr int kPer = kDim / 2 / kWarp;
  const int at = kPer * static_cast<int>(threadIdx.x % kWarp);
  const float* angles = table + int64_t{page.position} * kDim;
  float low[kPer], high[kPer], squares = 0;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    low[i] = projected[at + i];
    high[i] = projected[kDim / 2 + at + i];
    squares += low[i] * low[i] + high[i] * high[i];
  }
  if (norm != nullptr) {
    const float scale = rsqrtf(WarpSum(squares) / kDim + kSeerNormEps);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      low[i] *= scale * norm[at + i];
      high[i] *= scale * norm[kDim / 2 + at + i];
    }
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const float c = angles[at + i], s = angles[kDim / 2 + at + i];
    page.summary[at + i] = FromFloat<T>(low[i] * c - high[i] * s);
    page.summary[kDim / 2 + at + i] = FromFloat<T>(high[i] * c + low[i] * s);
  }
}

// The summaries of the CTA's tile; the warp's pages are rows warp and warp + kWarps of it. Whole CTA.
template <typename T, int kDim>
__device__ __forceinline__ void IndexTile(const Page<T> (&pages)[kRowsPerWarp], int32_t head,
                                          int32_t tokens, const SeerGate& gate, const float* table,
                                          Shared<T, kDim>& shared) {
  const int warp = static_cast<int>(threadIdx.x / kWarp);
#pragma unroll
  for (int i = 0; i < kRowsPerWarp; ++i) {
    if (pages[i].keys == nullptr) continue;
    T* pooled = shared.pooled + (warp + i * kWarps) * Shared<T, kDim>::kStride;
    PoolPage<T, kDim>(pages[i], tokens, table, pooled);
  }
  __syncthreads();
  ProjectTile<T, kDim>(gate, head, shared);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kRowsPerWarp; ++i) {
    if (pages[i].keys == nullptr) continue;
    StoreSummary<T, kDim>(pages[i], gate.k_norm, table, shared.projected[warp + i * kWarps]);
  }
}

template <typename T>
__device__ __forceinline__ T* SummaryAt(const KvTables& t, int32_t row, int32_t layer, int32_t head,
                                        int32_t page) {
  return static_cast<T*>(t.summaries) +
         StreamView(t, row, layer, head).Summary(page) * t.geometry.summary_elements;
}

// Tiles of all heads of all slices form one sequence that the grid strides over, since how many there are is known on
// the device only. Floor: the keys read once, out of HBM, and a float32 table row for each of them, out of L2.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(const SeerIndexPrefillParams p) {
  __shared__ Shared<T, kDim> shared;
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const StagingView staging(p.staging, g);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  auto next = static_cast<int32_t>(blockIdx.x);
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice slice = p.slices[s];
    const int32_t complete = (slice.prefix_tokens + slice.num_tokens) / g.page_tokens;
    SPIN_DEVICE_CHECK(slice.page_begin >= 0 && slice.page_begin + complete <= p.staging.num_pages);
    const int32_t tiles = CeilDiv(complete, kTileRows);
    for (; next < g.num_kv_heads * tiles; next += static_cast<int32_t>(gridDim.x)) {
      const int32_t head = next / tiles;
      Page<T> pages[kRowsPerWarp];
#pragma unroll
      for (int i = 0; i < kRowsPerWarp; ++i) {
        const int32_t page = next % tiles * kTileRows + warp + i * kWarps;
        if (page >= complete) continue;
        const int64_t token = int64_t{slice.page_begin + page} * g.page_tokens;
        pages[i].keys = reinterpret_cast<const T*>(staging.Key(head, token));
        pages[i].newest = pages[i].keys + (g.page_tokens - 1) * kDim;
        pages[i].summary = SummaryAt<T>(p.tables, slice.row, p.layer, head, page);
        pages[i].position = page * g.page_tokens;
      }
      IndexTile<T, kDim>(pages, head, g.page_tokens, p.gate, p.rope_table, shared);
    }
    next -= g.num_kv_heads * tiles;  // counted from the next slice's first tile
  }
}

// A CTA for sixteen batch places of a KV head. Nearly always none of them completes a page, and it ends at once.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 2) DecodeKernel(const SeerIndexDecodeParams p) {
  __shared__ Shared<T, kDim> shared;
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int32_t num_rows = NumRows(p.decode);
  Page<T> pages[kRowsPerWarp];
  bool any = false;
#pragma unroll
  for (int i = 0; i < kRowsPerWarp; ++i) {
    const int32_t place = static_cast<int32_t>(blockIdx.x) * kTileRows +
                          static_cast<int32_t>(threadIdx.x / kWarp) + i * kWarps;
    if (place >= num_rows) continue;
    const int32_t row = p.decode.rows[place];
    const int32_t position = p.decode.position[row];
    if (position % g.page_tokens != g.page_tokens - 1) continue;
    const int32_t page = position / g.page_tokens;
    const StreamView stream(p.tables, row, p.layer, head);
    pages[i].keys = reinterpret_cast<const T*>(stream.PageBytes(page));
    pages[i].newest = KeyOf<T>(p.qkv, g, place, head);
    pages[i].summary = SummaryAt<T>(p.tables, row, p.layer, head, page);
    pages[i].position = page * g.page_tokens;
    any = true;
  }
  if (__syncthreads_or(any) == 0) return;
  IndexTile<T, kDim>(pages, head, g.page_tokens, p.gate, p.rope_table, shared);
}

template <typename Params>
void CheckParams(const Params& p) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK_EQ(g.summary_elements, g.head_dim);
  SPIN_CHECK_EQ(g.page_tokens % kBatch, 0);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(p.gate.wk != nullptr && p.rope_table != nullptr);
}

template <typename T>
auto PrefillKernelFor(int32_t head_dim) {
  return head_dim == 64 ? PrefillKernel<T, 64> : PrefillKernel<T, 128>;
}
template <typename T>
auto DecodeKernelFor(int32_t head_dim) {
  return head_dim == 64 ? DecodeKernel<T, 64> : DecodeKernel<T, 128>;
}

}  // namespace

void SeerIndexPrefill(const SeerIndexPrefillParams& p, cudaStream_t stream) {
  CheckParams(p);
  const KvGeometry& g = p.tables.geometry;
  // Each slice may end in a tile that is not full.
  const int64_t most =
      int64_t{g.num_kv_heads} * (CeilDiv(p.staging.num_pages, kTileRows) + p.num_slices);
  SPIN_CHECK_LT(most, int64_t{1} << 30);  // with a stride of the grid added, indices fit int32
  const int64_t blocks = std::min<int64_t>(most, 4 * Traits().num_sms);
  if (p.num_slices == 0 || blocks == 0) return;
  const auto kernel = g.dtype == DType::kF32 ? PrefillKernelFor<float>(g.head_dim)
                                             : PrefillKernelFor<Bf16>(g.head_dim);
  Launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, p);
}

void SeerIndexDecode(const SeerIndexDecodeParams& p, cudaStream_t stream) {
  CheckParams(p);
  const KvGeometry& g = p.tables.geometry;
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(CeilDiv(p.decode.max_batch, kTileRows)),
                  static_cast<unsigned>(g.num_kv_heads));
  const auto kernel = g.dtype == DType::kF32 ? DecodeKernelFor<float>(g.head_dim)
                                             : DecodeKernelFor<Bf16>(g.head_dim);
  Launch(kernel, grid, dim3(kThreads), 0, stream, p);
}

}  // namespace spin::cuda
