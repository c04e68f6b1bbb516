// K^T K of a prompt's keys before rotation, for the basis of ShadowKV's low-rank keys.
//
// A CTA sums one tile of 64 x 64 channels over all tokens, on tensor cores in bfloat16; tiles below the diagonal are
// copies. 136 tiles at 8 heads of 128 fill a machine of 132 multiprocessors once. Every output is one sum in the order
// of tokens. Floor: at 32K tokens 36 G multiply-adds and 1.1 GB out of L2, each of them some 0.2 ms.
#include "common/check.h"
#include "kernels/cuda/key_record.cuh"
#include "kernels/cuda/key_scratch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace spin::cuda {
namespace {

constexpr int kTile = 64;  // channels, of one head
constexpr int kThreads = 128;
constexpr int kStepTokens = 64;
constexpr int kStages = 3;
constexpr int kRowBytes = kTile * 2;  // of a token in a tile of bf16
constexpr int kOperandBytes = kStepTokens * kRowBytes;
constexpr int kSharedBytes = kStages * 2 * kOperandBytes;

// Tiles (u, v), u <= v, numbered v (v + 1) / 2 + u.
__device__ __forceinline__ void TileOf(int32_t number, int32_t& u, int32_t& v) {
  v = 0;
  while ((v + 1) * (v + 2) / 2 <= number) ++v;
  u = number - v * (v + 1) / 2;
}

// The slice's keys of channels kTile * tile .. in staging, token after token.
__device__ __forceinline__ const char* ChannelsOf(const KeyFactorPrefillParams& p,
                                                  const PrefillSlice& slice, int32_t tile) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t channel = tile * kTile;
  return StagingView(p.staging, g)
             .Key(channel / g.head_dim, int64_t{slice.page_begin} * g.page_tokens) +
         channel % g.head_dim * SizeOf(g.dtype);
}

// Element (i, j) of the tile to its place and, mirrored, to the other.
__device__ __forceinline__ void Put(float* gram, int32_t width, int32_t i, int32_t j, float value) {
  gram[int64_t{i} * width + j] = value;
  gram[int64_t{j} * width + i] = value;
}

// A tile of 64 tokens x 64 channels: 16-byte chunk c of token t lies at chunk c ^ t % 8 of its row, so that the eight
// rows of a matrix lie in different banks.
__device__ __forceinline__ uint32_t ChunkAt(uint32_t operand, int token, int chunk) {
  return operand + token * kRowBytes + ((chunk ^ token % 8) << 4);
}

__device__ __forceinline__ void LoadStep(uint32_t stage, const char* a, const char* b,
                                         int64_t token_bytes, int32_t begin, int32_t tokens) {
#pragma unroll
  for (int i = 0; i < 2 * kStepTokens * 8 / kThreads; ++i) {
    const int item = i * kThreads + static_cast<int>(threadIdx.x);
    const int chunk = item % 8, token = item / 8 % kStepTokens, operand = item / 8 / kStepTokens;
    const char* from = (operand == 0 ? a : b) + (begin + token) * token_bytes + 16 * chunk;
    CopyChunk(ChunkAt(stage + operand * kOperandBytes, token, chunk), from, begin + token < tokens);
  }
}

// 32 x 32 of the tile a warp: its channels of a are the rows, those of b the columns.
__device__ __forceinline__ void MultiplyStep(uint32_t stage, float (&c)[2][4][4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            warp = static_cast<int>(threadIdx.x / kWarp);
  const int a_chunk = warp / 2 * 4 + lane / 8 % 2, b_chunk = warp % 2 * 4 + lane / 16;
  const int a_token = lane % 8 + lane / 16 * 8, b_token = lane % 16;
#pragma unroll
  for (int k = 0; k < kStepTokens; k += 16) {
    uint32_t a[2][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      LoadTransposed(a[i], ChunkAt(stage, k + a_token, a_chunk + 2 * i));
      LoadTransposed(b[i], ChunkAt(stage + kOperandBytes, k + b_token, b_chunk + 2 * i));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        Multiply(c[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    GramBf16Kernel(const __grid_constant__ KeyFactorPrefillParams p, int32_t first) {
  extern __shared__ __align__(128) char shared[];
  WaitForPredecessors();
  const KvGeometry& g = p.tables.geometry;
  const PrefillSlice slice = p.slices[first + blockIdx.y];
  if (!HasFactor(slice, g)) return;
  const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
  int32_t u, v;
  TileOf(static_cast<int32_t>(blockIdx.x), u, v);
  const char *a = ChannelsOf(p, slice, u), *b = ChannelsOf(p, slice, v);
  const int64_t token_bytes = int64_t{g.head_dim} * 2;
  const uint32_t stages = SharedAddress(shared);
  const int32_t steps = (tokens + kStepTokens - 1) / kStepTokens;
  const auto load = [&](int32_t step) {
    if (step < steps) {
      LoadStep(stages + step % kStages * 2 * kOperandBytes, a, b, token_bytes, step * kStepTokens,
               tokens);
    }
    CommitCopies();
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) load(step);
  float c[2][4][4] = {};
  for (int32_t step = 0; step < steps; ++step) {
    WaitCopies<kStages - 2>();
    __syncthreads();  // the step is there, and nobody reads the one before it
    load(step + kStages - 1);
    MultiplyStep(stages + step % kStages * 2 * kOperandBytes, c);
  }
  AllowSuccessors();
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            warp = static_cast<int>(threadIdx.x / kWarp);
  float* gram = ScratchOf(p, blockIdx.y).gram;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int32_t row = u * kTile + warp / 2 * 32 + i * 16 + lane / 4;
      const int32_t column = v * kTile + warp % 2 * 32 + j * 8 + lane % 4 * 2;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        Put(gram, g.key_width(), row + k / 2 * 8, column + k % 2, c[i][j][k]);
      }
    }
  }
}

// Float32: 8 x 4 outputs a thread.
__global__ void __launch_bounds__(kThreads)
    GramF32Kernel(const __grid_constant__ KeyFactorPrefillParams p, int32_t first) {
  constexpr int kTokens = 16;
  __shared__ float4 shared[2][kTokens][kTile / 4];
  WaitForPredecessors();
  const KvGeometry& g = p.tables.geometry;
  const PrefillSlice slice = p.slices[first + blockIdx.y];
  if (!HasFactor(slice, g)) return;
  const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
  int32_t u, v;
  TileOf(static_cast<int32_t>(blockIdx.x), u, v);
  const char* from[2] = {ChannelsOf(p, slice, u), ChannelsOf(p, slice, v)};
  const int32_t row = static_cast<int32_t>(threadIdx.x / 16),
                column = static_cast<int32_t>(threadIdx.x % 16);
  float c[8][4] = {};
  for (int32_t begin = 0; begin < tokens; begin += kTokens) {
    __syncthreads();
    for (int item = static_cast<int>(threadIdx.x); item < 2 * kTokens * 16; item += kThreads) {
      const int chunk = item % 16, token = item / 16 % kTokens, operand = item / 16 / kTokens;
      shared[operand][token][chunk] =
          begin + token < tokens
              ? *reinterpret_cast<const float4*>(
                    from[operand] + int64_t{begin + token} * g.head_dim * 4 + 16 * chunk)
              : float4{};
    }
    __syncthreads();
    for (int token = 0; token < kTokens; ++token) {
      const float* a = reinterpret_cast<const float*>(shared[0][token]) + 8 * row;
      const float4 b = shared[1][token][column];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        c[i][0] += a[i] * b.x;
        c[i][1] += a[i] * b.y;
        c[i][2] += a[i] * b.z;
        c[i][3] += a[i] * b.w;
      }
    }
  }
  AllowSuccessors();
  float* gram = ScratchOf(p, blockIdx.y).gram;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      Put(gram, g.key_width(), u * kTile + 8 * row + i, v * kTile + 4 * column + j, c[i][j]);
    }
  }
}

}  // namespace

void SumKeyGrams(const KeyFactorPrefillParams& p, int32_t first, int32_t count,
                 cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.key_width() % kTile, 0);
  const auto tiles = static_cast<unsigned>(g.key_width() / kTile);
  const dim3 grid(tiles * (tiles + 1) / 2, static_cast<unsigned>(count));
  if (g.dtype == DType::kF32) {
    Launch(GramF32Kernel, grid, dim3(kThreads), 0, stream, p, first);
  } else {
    Launch(GramBf16Kernel, grid, dim3(kThreads), kSharedBytes, stream, p, first);
  }
}

}  // namespace spin::cuda
