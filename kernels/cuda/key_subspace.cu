// The basis of a prompt's keys from their Gram matrix: subspace iteration, q = orth(K^T K q), a few times over.
//
// orth is a Cholesky factorisation of z^T z in float64, so that z's condition may be what float32 can hold, and a
// substitution, z L^-T. All but the factorisation is spread over the machine; that is one CTA a slice, and latency: the
// whole takes under a millisecond for 1,024 channels and rank 160, beside the products of the next layer.
#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/key_record.cuh"
#include "kernels/cuda/key_scratch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ bool IsFactored(const KeyFactorPrefillParams& p, int32_t slice) {
  return HasFactor(p.slices[slice], p.tables.geometry);
}

// ---- Start: q, and the shift of the diagonal.

__global__ void __launch_bounds__(kThreads)
    StartKernel(const __grid_constant__ KeyFactorPrefillParams p, int32_t first) {
  __shared__ double of_warp[kThreads / kWarp];
  WaitForPredecessors();
  AllowSuccessors();
  if (!IsFactored(p, first + static_cast<int32_t>(blockIdx.y))) return;
  const KvGeometry& g = p.tables.geometry;
  const int32_t width = g.key_width();
  const KeyScratch s = ScratchOf(p, blockIdx.y);
  const auto stride = static_cast<int32_t>(gridDim.x * kThreads);
  for (int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
       i < width * g.key_rank; i += stride) {
    s.q[i] = KeyStart(static_cast<uint32_t>(i));
  }
  if (blockIdx.x != 0) return;
  double trace = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < width; i += kThreads) {
    trace += static_cast<double>(s.gram[int64_t{i} * (width + 1)]);
  }
  trace = WarpSum(trace);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = trace;
  __syncthreads();
  trace = 0;
  for (const double sum : of_warp) trace += sum;
  const auto shift = static_cast<float>(static_cast<double>(kKeyShift) * trace / width);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < width; i += kThreads) {
    s.gram[int64_t{i} * (width + 1)] += shift;
  }
}

// ---- z = gram q. Tiles of 64 x 32, 4 x 4 outputs a thread; gram is symmetric, hence read by rows of k.

constexpr int kSpanThreads = 128;
constexpr int kSpanRows = 64;
constexpr int kSpanColumns = 32;
constexpr int kSpanDepth = 32;
constexpr int kSpanStages = 3;

struct SpanStage {
  float a[kSpanDepth][kSpanRows];
  float b[kSpanDepth][kSpanColumns];
};

__device__ __forceinline__ void LoadSpan(SpanStage& stage, const KeyScratch& s, int32_t width,
                                         int32_t rank, int32_t row, int32_t column, int32_t k) {
  for (int i = static_cast<int>(threadIdx.x); i < kSpanDepth * kSpanRows / 4; i += kSpanThreads) {
    const int depth = i / (kSpanRows / 4), at = i % (kSpanRows / 4) * 4;
    CopyChunk(SharedAddress(&stage.a[depth][at]), s.gram + int64_t{k + depth} * width + row + at,
              true);
  }
  for (int i = static_cast<int>(threadIdx.x); i < kSpanDepth * kSpanColumns / 4;
       i += kSpanThreads) {
    const int depth = i / (kSpanColumns / 4), at = i % (kSpanColumns / 4) * 4;
    CopyChunk(SharedAddress(&stage.b[depth][at]), s.q + int64_t{k + depth} * rank + column + at,
              column + at < rank);
  }
}

__global__ void __launch_bounds__(kSpanThreads)
    SpanKernel(const __grid_constant__ KeyFactorPrefillParams p, int32_t first) {
  __shared__ __align__(16) SpanStage stages[kSpanStages];
  WaitForPredecessors();
  if (!IsFactored(p, first + static_cast<int32_t>(blockIdx.z))) return;
  const KvGeometry& g = p.tables.geometry;
  const int32_t width = g.key_width(), rank = g.key_rank;
  const KeyScratch s = ScratchOf(p, blockIdx.z);
  const auto row = static_cast<int32_t>(blockIdx.x) * kSpanRows;
  const auto column = static_cast<int32_t>(blockIdx.y) * kSpanColumns;
  const int32_t steps = width / kSpanDepth;
  const auto load = [&](int32_t step) {
    if (step < steps) {
      LoadSpan(stages[step % kSpanStages], s, width, rank, row, column, step * kSpanDepth);
    }
    CommitCopies();
  };
#pragma unroll
  for (int step = 0; step < kSpanStages - 1; ++step) load(step);
  const int i = static_cast<int>(threadIdx.x) / 8 * 4, j = static_cast<int>(threadIdx.x) % 8 * 4;
  float c[4][4] = {};
  for (int32_t step = 0; step < steps; ++step) {
    WaitCopies<kSpanStages - 2>();
    __syncthreads();
    load(step + kSpanStages - 1);
    const SpanStage& stage = stages[step % kSpanStages];
#pragma unroll 8
    for (int k = 0; k < kSpanDepth; ++k) {
      const float4 a = *reinterpret_cast<const float4*>(&stage.a[k][i]);
      const float4 b = *reinterpret_cast<const float4*>(&stage.b[k][j]);
      const float of_a[4] = {a.x, a.y, a.z, a.w}, of_b[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int q = 0; q < 4; ++q) c[r][q] += of_a[r] * of_b[q];
      }
    }
  }
  AllowSuccessors();
  if (column + j >= rank) return;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    *reinterpret_cast<float4*>(s.z + int64_t{row + i + r} * rank + column + j) =
        make_float4(c[r][0], c[r][1], c[r][2], c[r][3]);
  }
}

// ---- products[b][a] = (z^T z)[a][b], a >= b: a tile of 16 x 16 a CTA, an output a thread.

constexpr int kBlock = 16;
constexpr int kBlockDepth = 64;

__global__ void __launch_bounds__(kThreads)
    ProductsKernel(const __grid_constant__ KeyFactorPrefillParams p, int32_t first) {
  __shared__ double of_a[kBlockDepth][kBlock], of_b[kBlockDepth][kBlock];
  WaitForPredecessors();
  if (!IsFactored(p, first + static_cast<int32_t>(blockIdx.z))) return;
  if (blockIdx.x < blockIdx.y) return;
  const KvGeometry& g = p.tables.geometry;
  const int32_t width = g.key_width(), rank = g.key_rank;
  const KeyScratch s = ScratchOf(p, blockIdx.z);
  const auto a = static_cast<int32_t>(blockIdx.x) * kBlock,
             b = static_cast<int32_t>(blockIdx.y) * kBlock;
  const int x = static_cast<int>(threadIdx.x) % kBlock, y = static_cast<int>(threadIdx.x) / kBlock;
  double sum = 0;
  for (int32_t begin = 0; begin < width; begin += kBlockDepth) {
    __syncthreads();
#pragma unroll
    for (int k = y; k < kBlockDepth; k += kBlock) {
      const float* z = s.z + int64_t{begin + k} * rank + x;
      of_a[k][x] = static_cast<double>(z[a]);
      of_b[k][x] = static_cast<double>(z[b]);
    }
    __syncthreads();
#pragma unroll 16
    for (int k = 0; k < kBlockDepth; ++k) sum += of_a[k][x] * of_b[k][y];
  }
  AllowSuccessors();
  s.products[int64_t{b + y} * rank + a + x] = sum;
}

// ---- products = L, column after column, L L^T = products; inverse as kernels/cpu/key_products.cc has it.

__global__ void __launch_bounds__(kThreads)
    FactoriseKernel(const __grid_constant__ KeyFactorPrefillParams p, int32_t first) {
  constexpr double kLeast = 1e-15;  // of a column's own square
  __shared__ double pivot_row[kMaxKeyRank];
  __shared__ double inverse;
  WaitForPredecessors();
  AllowSuccessors();
  if (!IsFactored(p, first + static_cast<int32_t>(blockIdx.x))) return;
  const int32_t rank = p.tables.geometry.key_rank;
  const KeyScratch s = ScratchOf(p, blockIdx.x);
  const auto i = static_cast<int32_t>(threadIdx.x);  // a thread a row
  for (int32_t j = 0; j < rank; ++j) {
    if (i < j) pivot_row[i] = s.products[int64_t{i} * rank + j];
    __syncthreads();
    double sum = 0;
    const bool below = i >= j && i < rank;
    if (below) {
      const double* of_row = s.products + i;
      double parts[4] = {of_row[int64_t{j} * rank], 0, 0, 0};
      int32_t k = 0;
      for (; k + 4 <= j; k += 4) {
#pragma unroll
        for (int q = 0; q < 4; ++q) parts[q] -= of_row[int64_t{k + q} * rank] * pivot_row[k + q];
      }
      for (; k < j; ++k) parts[0] -= of_row[int64_t{k} * rank] * pivot_row[k];
      sum = (parts[0] + parts[1]) + (parts[2] + parts[3]);
    }
    if (i == j) {
      const double square = s.products[int64_t{j} * rank + j];
      inverse = sum > kLeast * square ? rsqrt(sum) : 0;
      s.inverse[j] = inverse;
    }
    __syncthreads();
    if (below) s.products[int64_t{j} * rank + i] = sum * inverse;
    __syncthreads();
  }
}

// ---- q = z L^-T, a row a warp: lane l has columns l, l + 32... Once a column is known, the ones behind it forget it.

template <bool kLast, typename T>
__global__ void __launch_bounds__(kThreads)
    SolveKernel(const __grid_constant__ KeyFactorPrefillParams p, int32_t first) {
  constexpr int kParts = kMaxKeyRank / kWarp;
  WaitForPredecessors();
  AllowSuccessors();
  const PrefillSlice slice = p.slices[first + blockIdx.y];
  const KvGeometry& g = p.tables.geometry;
  const int32_t rank = g.key_rank;
  T* basis = reinterpret_cast<T*>(BasisAt(p.tables, slice.row, p.layer));
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const auto row = static_cast<int32_t>((blockIdx.x * kThreads + threadIdx.x) / kWarp);
  if (!HasFactor(slice, g)) {
    if (kLast && row == 0 && lane == 0) basis[0] = FromFloat<T>(__int_as_float(0x7fc00000));
    return;
  }
  if (row >= g.key_width()) return;
  const KeyScratch s = ScratchOf(p, blockIdx.y);
  double left[kParts];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int32_t column = part * kWarp + lane;
    left[part] = column < rank ? static_cast<double>(s.z[int64_t{row} * rank + column]) : 0;
  }
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    if (part * kWarp >= rank) break;
    for (int l = 0; l < kWarp && part * kWarp + l < rank; ++l) {
      const int32_t j = part * kWarp + l;
      const double solved = __shfl_sync(kAllLanes, left[part], l) * s.inverse[j];
      const double* of_column = s.products + int64_t{j} * rank;
#pragma unroll
      for (int other = part; other < kParts; ++other) {
        const int32_t column = other * kWarp + lane;
        if (column > j && column < rank) left[other] -= solved * of_column[column];
      }
      if (lane == l) left[part] = solved;
    }
  }
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int32_t column = part * kWarp + lane;
    if (column >= rank) continue;
    const auto value = static_cast<float>(left[part]);
    if constexpr (kLast) {
      basis[int64_t{row} * rank + column] = FromFloat<T>(value);
    } else {
      s.q[int64_t{row} * rank + column] = value;
    }
  }
}

void Solve(const KeyFactorPrefillParams& p, int32_t first, int32_t count, bool last,
           cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const dim3 grid(static_cast<unsigned>(CeilDiv(g.key_width(), kThreads / kWarp)),
                  static_cast<unsigned>(count));
  const auto kernel = !last                    ? SolveKernel<false, float>
                      : g.dtype == DType::kF32 ? SolveKernel<true, float>
                                               : SolveKernel<true, Bf16>;
  Launch(kernel, grid, dim3(kThreads), 0, stream, p, first);
}

}  // namespace

void FindKeyBases(const KeyFactorPrefillParams& p, int32_t first, int32_t count,
                  cudaStream_t stream) {
  static_assert(kMaxKeyRank <= kThreads, "a thread a row of the factorisation");
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.key_width() % kSpanRows, 0);
  const auto slices = static_cast<unsigned>(count);
  Launch(StartKernel, dim3(32, slices), dim3(kThreads), 0, stream, p, first);
  const dim3 span(static_cast<unsigned>(g.key_width() / kSpanRows),
                  static_cast<unsigned>(CeilDiv(g.key_rank, kSpanColumns)), slices);
  const auto blocks = static_cast<unsigned>(g.key_rank / kBlock);
  for (int32_t iteration = 1; iteration <= kKeyIterations; ++iteration) {
    Launch(SpanKernel, span, dim3(kSpanThreads), 0, stream, p, first);
    Launch(ProductsKernel, dim3(blocks, blocks, slices), dim3(kThreads), 0, stream, p, first);
    Launch(FactoriseKernel, dim3(slices), dim3(kThreads), 0, stream, p, first);
    Solve(p, first, count, iteration == kKeyIterations, stream);
  }
}

}  // namespace spin::cuda
