// Factors of pages of keys: keys before rotation times basis, into the ends of the pages' summaries. And the rotation
// back of keys in staging, which comes first.
#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/key_record.cuh"
#include "kernels/cuda/key_stages.h"
#include "kernels/cuda/tensor_core.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;

// ---- Rotation back

// 16 bytes of the lower half of a key, and those of the upper half that were rotated with them: as before rotation.
template <typename T>
__device__ __forceinline__ void RotatePieceBack(uint4& low, uint4& high, const float* cosine,
                                                const float* sine, float inverse) {
  constexpr int kChannels = kPieceElements<T>;
  float a[kChannels], b[kChannels], x[kChannels], y[kChannels];
  UnpackPiece<T>(low, a);
  UnpackPiece<T>(high, b);
#pragma unroll
  for (int i = 0; i < kChannels; i += 4) {
    const float4 c4 = *reinterpret_cast<const float4*>(cosine + i);
    const float4 s4 = *reinterpret_cast<const float4*>(sine + i);
    const float c[4] = {c4.x, c4.y, c4.z, c4.w}, s[4] = {s4.x, s4.y, s4.z, s4.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float of_c = c[k] * inverse, of_s = s[k] * inverse;
      x[i + k] = a[i + k] * of_c + b[i + k] * of_s;
      y[i + k] = b[i + k] * of_c - a[i + k] * of_s;
    }
  }
  low = RoundToPiece<T>(x);
  high = RoundToPiece<T>(y);
}

// Floor: keys read and written once.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RotateKernel(const __grid_constant__ KeyFactorPrefillParams p) {
  constexpr int kChannels = kPieceElements<T>;
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const StagingView staging(p.staging, g);
  const int32_t half = g.head_dim / 2, pieces = half / kChannels;
  const float inverse = InverseMagnitude(p.rope_table);
  const auto stride = static_cast<int32_t>(gridDim.x) * kThreads;
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice slice = p.slices[s];
    if (!HasFactor(slice, g)) continue;
    const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
    for (int32_t item = static_cast<int32_t>(blockIdx.x) * kThreads + threadIdx.x;
         item < g.num_kv_heads * tokens * pieces; item += stride) {
      const int32_t channel = item % pieces * kChannels;
      const int32_t token = item / pieces % tokens;
      char* key =
          staging.Key(item / pieces / tokens, int64_t{slice.page_begin} * g.page_tokens + token);
      auto* low = reinterpret_cast<uint4*>(key + channel * sizeof(T));
      auto* high = reinterpret_cast<uint4*>(key + (half + channel) * sizeof(T));
      const float* angles = p.rope_table + int64_t{token} * g.head_dim + channel;
      uint4 a = *low, b = *high;
      RotatePieceBack<T>(a, b, angles, angles + half, inverse);
      *low = a;
      *high = b;
    }
  }
}

// ---- Factors of a prompt, bfloat16: 64 tokens a CTA, a warp 16 of them and all columns.

constexpr int kTile = 64;  // tokens, and channels of a step
constexpr int kTileThreads = 128;
constexpr int kKeyBytes = kTile * 2;  // of a token in a step
constexpr int kMaxTiles = kMaxKeyRank / 8;

__host__ __device__ constexpr int BasisPitch(int rank) {  // bytes; an odd number of 16-byte chunks
  return 2 * rank + 16;
}
__host__ __device__ constexpr int StageBytes(int rank) {
  return kTile * (kKeyBytes + BasisPitch(rank));
}

// One step: channels channel .. channel + 63 of all heads. Key chunk c of token t lies at chunk c ^ t % 8.
__device__ __forceinline__ void LoadStep(uint32_t stage, const StagingView& staging,
                                         const KvGeometry& g, int64_t staged, int32_t tokens,
                                         const Bf16* basis, int32_t channel) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int32_t head = channel / g.head_dim;
  for (int i = thread; i < kTile * 8; i += kTileThreads) {
    const int token = i / 8, chunk = i % 8;
    CopyChunk(stage + token * kKeyBytes + ((chunk ^ token % 8) << 4),
              staging.Key(head, staged + token) + channel % g.head_dim * 2 + 16 * chunk,
              token < tokens);
  }
  const int chunks = g.key_rank / 8;
  for (int i = thread; i < kTile * chunks; i += kTileThreads) {
    const int row = i / chunks, chunk = i % chunks;
    CopyChunk(stage + kTile * kKeyBytes + row * BasisPitch(g.key_rank) + 16 * chunk,
              basis + int64_t{channel + row} * g.key_rank + 8 * chunk, true);
  }
}

__device__ __forceinline__ void MultiplyStep(uint32_t stage, int rank, float (&c)[kMaxTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            warp = static_cast<int>(threadIdx.x / kWarp);
  const int token = warp * 16 + lane % 16;
  const uint32_t basis = stage + kTile * kKeyBytes;
#pragma unroll 1  // more would not fit into registers everywhere
  for (int k = 0; k < kTile; k += 16) {
    uint32_t a[4];
    LoadMatrices(a, stage + token * kKeyBytes + (((k / 8 + lane / 16) ^ token % 8) << 4));
#pragma unroll
    for (int tile = 0; tile < kMaxTiles; tile += 2) {
      if (tile * 8 < rank) {
        uint32_t b[4];
        LoadTransposed(b, basis + (k + lane % 16) * BasisPitch(rank) + (tile + lane / 16) * 16);
        Multiply(c[tile], a, b[0], b[1]);
        Multiply(c[tile + 1], a, b[2], b[3]);
      }
    }
  }
}

__global__ void __launch_bounds__(kTileThreads)
    PrefillBf16Kernel(const __grid_constant__ KeyFactorPrefillParams p) {
  extern __shared__ __align__(128) char shared[];
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const StagingView staging(p.staging, g);
  const int rank = g.key_rank;
  const uint32_t stages = SharedAddress(shared);
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            warp = static_cast<int>(threadIdx.x / kWarp);
  auto next = static_cast<int32_t>(blockIdx.x);
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice slice = p.slices[s];
    if (!HasFactor(slice, g)) continue;
    const int32_t complete =
        (slice.prefix_tokens + slice.num_tokens) / g.page_tokens * g.page_tokens;
    const int32_t tiles = CeilDiv(complete, kTile);
    const auto* basis = reinterpret_cast<const Bf16*>(BasisAt(p.tables, slice.row, p.layer));
    for (; next < tiles; next += static_cast<int32_t>(gridDim.x)) {
      const int32_t begin = next * kTile, tokens = min(complete - begin, kTile);
      const int64_t staged = int64_t{slice.page_begin} * g.page_tokens + begin;
      const int32_t steps = g.key_width() / kTile;
      const auto load = [&](int32_t step) {
        if (step < steps) {
          LoadStep(stages + step % 2 * StageBytes(rank), staging, g, staged, tokens, basis,
                   step * kTile);
        }
        CommitCopies();
      };
      float c[kMaxTiles][4] = {};
      load(0);
      for (int32_t step = 0; step < steps; ++step) {
        load(step + 1);
        WaitCopies<1>();
        __syncthreads();
        MultiplyStep(stages + step % 2 * StageBytes(rank), rank, c);
        __syncthreads();
      }
      // Rows lane / 4 and lane / 4 + 8 of the warp's 16 tokens: the same token of two pages.
#pragma unroll
      for (int page = 0; page < 2; ++page) {
        const int32_t first = warp * 16 + page * 8;
        if (first >= tokens) continue;
        auto* record = static_cast<Bf16*>(p.tables.summaries) +
                       RecordAt(p.tables, slice.row, p.layer, (begin + first) / g.page_tokens);
#pragma unroll
        for (int tile = 0; tile < kMaxTiles; ++tile) {
          if (tile * 8 >= rank) break;
          const int32_t element = lane / 4 * rank + tile * 8 + lane % 4 * 2;
          *reinterpret_cast<uint32_t*>(record + PieceOffset(g, element)) =
              PackBf16(c[tile][2 * page], c[tile][2 * page + 1]);
        }
      }
    }
    next -= tiles;  // counted from the next slice's first tile
  }
}

// ---- Factors page by page: decode steps, and prompts in float32. 32 columns of one page a CTA.

constexpr int kColumns = 32;
constexpr int kParts = kThreads / kColumns;  // of the channels, a warp each

// The page's keys as floats, [channel][token]; then what the warps have of the 8 x 32 outputs.
struct PageShared {
  float* keys;
  float (*sums)[kLandmarkTokens][kColumns];
};
constexpr size_t PageBytes(int32_t width) {
  return (static_cast<size_t>(width) * kLandmarkTokens +
          size_t{kParts} * kLandmarkTokens * kColumns) *
         sizeof(float);
}
static_assert(PageBytes(0) == FactorPageBytes(0) && PageBytes(1) == FactorPageBytes(1));
__device__ __forceinline__ PageShared CutPage(float* shared, int32_t width) {
  return {shared,
          reinterpret_cast<float(*)[kLandmarkTokens][kColumns]>(shared + width * kLandmarkTokens)};
}

// Columns column .. column + 31 of the factor of page `page`, whose keys are in `shared`. Called by all threads.
template <typename T>
__device__ __forceinline__ void WriteColumns(const KvTables& t, int32_t row, int32_t layer,
                                             int32_t page, int32_t column,
                                             const PageShared& shared) {
  const KvGeometry& g = t.geometry;
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            part = static_cast<int>(threadIdx.x / kWarp);
  const auto* basis = reinterpret_cast<const T*>(BasisAt(t, row, layer));
  const int32_t channels = g.key_width() / kParts;  // a multiple of 8
  const bool used = column + lane < g.key_rank;
  float sum[kLandmarkTokens] = {};
  __syncthreads();  // the keys are there
#pragma unroll 8
  for (int32_t c = part * channels; c < (part + 1) * channels; ++c) {
    const float of_basis = used ? ToFloat(basis[int64_t{c} * g.key_rank + column + lane]) : 0;
    const auto* keys = reinterpret_cast<const float4*>(shared.keys + c * kLandmarkTokens);
    const float4 a = keys[0], b = keys[1];
    const float key[kLandmarkTokens] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (int token = 0; token < kLandmarkTokens; ++token) sum[token] += key[token] * of_basis;
  }
#pragma unroll
  for (int token = 0; token < kLandmarkTokens; ++token) shared.sums[part][token][lane] = sum[token];
  __syncthreads();
  // A thread an output: token `part` of the page.
  static_assert(kParts == kLandmarkTokens);
  float total = 0;
#pragma unroll
  for (int k = 0; k < kParts; ++k) total += shared.sums[k][part][lane];
  if (used) {
    T* record = static_cast<T*>(t.summaries) + RecordAt(t, row, layer, page);
    record[PieceOffset(g, part * g.key_rank + column + lane)] = FromFloat<T>(total);
  }
  __syncthreads();  // before the next page's keys
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    DecodeKernel(const __grid_constant__ KeyFactorDecodeParams p) {
  extern __shared__ __align__(16) float memory[];
  constexpr int kChannels = kPieceElements<T>;
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const auto place = static_cast<int32_t>(blockIdx.y);
  if (place >= NumRows(p.decode)) return;
  const int32_t row = p.decode.rows[place];
  const int32_t position = p.decode.position[row];
  if (position % kLandmarkTokens != kLandmarkTokens - 1) return;
  if (!HasBasis(p.tables, row, p.layer)) return;
  const int32_t page = position / kLandmarkTokens;
  const PageShared shared = CutPage(memory, g.key_width());
  const float inverse = InverseMagnitude(p.rope_table);
  const int32_t half = g.head_dim / 2, pieces = half / kChannels;
  for (int32_t item = static_cast<int32_t>(threadIdx.x);
       item < g.num_kv_heads * kLandmarkTokens * pieces; item += kThreads) {
    const int32_t channel = item % pieces * kChannels, token = item / pieces % kLandmarkTokens;
    const int32_t head = item / pieces / kLandmarkTokens;
    const T* key =
        token == kLandmarkTokens - 1
            ? KeyOf<T>(p.qkv, g, place, head)
            : reinterpret_cast<const T*>(StreamView(p.tables, row, p.layer, head).PageBytes(page)) +
                  g.KeyOffset(token);
    uint4 low = *reinterpret_cast<const uint4*>(key + channel);
    uint4 high = *reinterpret_cast<const uint4*>(key + half + channel);
    const float* angles =
        p.rope_table + (int64_t{page} * kLandmarkTokens + token) * g.head_dim + channel;
    RotatePieceBack<T>(low, high, angles, angles + half, inverse);
    float x[kChannels], y[kChannels];
    UnpackPiece<T>(low, x);
    UnpackPiece<T>(high, y);
    float* to = shared.keys + (head * g.head_dim + channel) * kLandmarkTokens + token;
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      to[i * kLandmarkTokens] = x[i];
      to[(half + i) * kLandmarkTokens] = y[i];
    }
  }
  WriteColumns<T>(p.tables, row, p.layer, page, static_cast<int32_t>(blockIdx.x) * kColumns,
                  shared);
}

__global__ void __launch_bounds__(kThreads)
    PrefillF32Kernel(const __grid_constant__ KeyFactorPrefillParams p) {
  extern __shared__ __align__(16) float memory[];
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const StagingView staging(p.staging, g);
  const PageShared shared = CutPage(memory, g.key_width());
  auto next = static_cast<int32_t>(blockIdx.x);
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice slice = p.slices[s];
    if (!HasFactor(slice, g)) continue;
    const int32_t pages = (slice.prefix_tokens + slice.num_tokens) / g.page_tokens;
    for (; next < pages; next += static_cast<int32_t>(gridDim.x)) {
      for (int32_t item = static_cast<int32_t>(threadIdx.x); item < g.key_width() * kLandmarkTokens;
           item += kThreads) {
        const int32_t channel = item / kLandmarkTokens, token = item % kLandmarkTokens;
        const char* key = staging.Key(channel / g.head_dim,
                                      int64_t{slice.page_begin + next} * g.page_tokens + token);
        shared.keys[item] = reinterpret_cast<const float*>(key)[channel % g.head_dim];
      }
      for (int32_t column = 0; column < g.key_rank; column += kColumns) {
        WriteColumns<float>(p.tables, slice.row, p.layer, next, column, shared);
      }
    }
    next -= pages;  // counted from the next slice's first page
  }
}

}  // namespace

void RotateStagedKeysBack(const KeyFactorPrefillParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const int64_t items = int64_t{p.staging.num_pages} * g.plane_elements() * g.num_kv_heads / 8;
  SPIN_CHECK_LT(items, int64_t{1} << 30);  // with a stride of the grid added, indices fit int32
  const int64_t blocks = std::min<int64_t>(CeilDiv<int64_t>(items, kThreads), 8 * Traits().num_sms);
  if (blocks == 0) return;
  Launch(g.dtype == DType::kF32 ? RotateKernel<float> : RotateKernel<Bf16>,
         dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, p);
}

void WriteKeyFactors(const KeyFactorPrefillParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  if (p.staging.num_pages == 0) return;
  if (g.dtype == DType::kF32) {
    const auto blocks = std::min<unsigned>(p.staging.num_pages, 4 * Traits().num_sms);
    Launch(PrefillF32Kernel, dim3(blocks), dim3(kThreads), PageBytes(g.key_width()), stream, p);
    return;
  }
  const int32_t most = CeilDiv(p.staging.num_pages * g.page_tokens, kTile) + p.num_slices;
  const auto blocks = static_cast<unsigned>(std::min(most, 4 * Traits().num_sms));
  Launch(PrefillBf16Kernel, dim3(blocks), dim3(kTileThreads), 2 * StageBytes(g.key_rank), stream,
         p);
}

void KeyFactorDecode(const KeyFactorDecodeParams& p, cudaStream_t stream) {
  CheckKeyGeometry(p.tables, p.rope_table);
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.key_width() % (8 * kParts), 0);
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(CeilDiv(g.key_rank, kColumns)),
                  static_cast<unsigned>(p.decode.max_batch));
  Launch(g.dtype == DType::kF32 ? DecodeKernel<float> : DecodeKernel<Bf16>, grid, dim3(kThreads),
         PageBytes(g.key_width()), stream, p);
}

}  // namespace spin::cuda
