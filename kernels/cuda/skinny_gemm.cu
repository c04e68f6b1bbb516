// Linear layers of a few rows: c = a w^T, or c += a w^T, with m <= 16 rows of bf16. Weights are read once, so the floor
// is their bytes over the bandwidth.
//
// A CTA computes 16 outputs of all rows; its eight warps split k, each a contiguous run of 32-element steps, and add up
// in order of warp through shared memory. Weights go from global memory into the registers of the product that uses
// them: a product's order of k is free as long as both operands have the same, so that a lane takes 16 consecutive
// bytes of each operand (k = 8 q .. 8 q + 7 of the step for lane q of four) where the instruction's own layout would
// scatter words. Each lane keeps kStages steps in flight: 64 KiB of weights a CTA, two CTAs a multiprocessor.
//
// Weights never change while kernels run: their first loads are issued before the wait for predecessors, under whose
// tail they arrive.
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kOutputs = 16;  // of a CTA: the product's rows
constexpr int kRows = 8;      // of a tile of the batch: the product's columns
constexpr int kStep = 32;     // elements of k: two products deep
constexpr int kMaxTiles = 2;

__device__ __forceinline__ uint4 LoadOnce(const Bf16* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// What a lane holds of one step: two rows of weights (r, r + 8), one row of each tile of the batch.
template <int kTiles>
struct Stage {
  uint4 w[2];
  uint4 a[kTiles];
};

template <int kTiles>
struct Operands {
  const Bf16* w[2];
  const Bf16* a[kTiles];  // null: no such row

  __device__ __forceinline__ void LoadWeights(int step, Stage<kTiles>& stage) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) stage.w[i] = LoadOnce(w[i] + step * kStep);
  }
  __device__ __forceinline__ void LoadRows(int step, Stage<kTiles>& stage) const {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      stage.a[t] = a[t] == nullptr ? uint4{} : *reinterpret_cast<const uint4*>(a[t] + step * kStep);
    }
  }
};

template <int kTiles>
__device__ __forceinline__ void MultiplyStep(const Stage<kTiles>& s, float (&sum)[kTiles][4]) {
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    Multiply(sum[t], s.w[0].x, s.w[1].x, s.w[0].y, s.w[1].y, s.a[t].x, s.a[t].y);
    Multiply(sum[t], s.w[0].z, s.w[1].z, s.w[0].w, s.w[1].w, s.a[t].z, s.a[t].w);
  }
}

// sum += the steps [0, count) of this warp. Weights of the first kStages steps are read before the predecessors have
// ended, rows after.
template <int kTiles, int kStages>
__device__ __forceinline__ void MultiplySlice(const Operands<kTiles>& from, int count,
                                              float (&sum)[kTiles][4]) {
  Stage<kTiles> stages[kStages];
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    if (i < count) from.LoadWeights(i, stages[i]);
  }
  WaitForPredecessors();
  AllowSuccessors();
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    if (i < count) from.LoadRows(i, stages[i]);
  }
  for (int begin = 0; begin < count; begin += kStages) {
#pragma unroll
    for (int i = 0; i < kStages; ++i) {
      if (begin + i >= count) break;
      MultiplyStep(stages[i], sum);
      const int next = begin + i + kStages;
      if (next < count) {
        from.LoadWeights(next, stages[i]);
        from.LoadRows(next, stages[i]);
      }
    }
  }
}

// Output n of row `row`.
__device__ __forceinline__ void Store(const GemmParams& p, int row, int n, float value) {
  const int64_t at = row * p.ldc + n;
  if (p.c_dtype == DType::kBf16) {
    static_cast<Bf16*>(p.c)[at] = FromFloat<Bf16>(value);
  } else {
    float* c = static_cast<float*>(p.c);
    c[at] = p.accumulate ? c[at] + value : value;
  }
}

template <int kTiles, int kStages>
__global__ void __launch_bounds__(kThreads, 2) SkinnyKernel(const GemmParams p) {
  constexpr int kWidth = kTiles * kRows;
  __shared__ float partial[kWarps][kOutputs][kWidth + 1];
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            warp = static_cast<int>(threadIdx.x / kWarp);
  const int group = lane / 4, quarter = lane % 4;
  const int n = static_cast<int>(blockIdx.x) * kOutputs;
  const int steps = p.w.k / kStep;
  const int begin = steps * warp / kWarps, count = steps * (warp + 1) / kWarps - begin;

  Operands<kTiles> from;
  const int64_t k = int64_t{begin} * kStep + quarter * 8;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    from.w[i] = static_cast<const Bf16*>(p.w.data) + int64_t{n + group + 8 * i} * p.w.k + k;
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int row = t * kRows + group;
    from.a[t] = row < p.m ? static_cast<const Bf16*>(p.a) + row * p.lda + k : nullptr;
  }
  float sum[kTiles][4] = {};
  MultiplySlice<kTiles, kStages>(from, count, sum);

#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      partial[warp][group + i / 2 * 8][t * kRows + quarter * 2 + i % 2] = sum[t][i];
    }
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x) / kOutputs,
            output = static_cast<int>(threadIdx.x) % kOutputs;
  if (row >= p.m || row >= kWidth) return;
  float total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += partial[i][output][row];
  Store(p, row, n + output, total);
}
static_assert(kMaxTiles * kRows * kOutputs <= kThreads);

__global__ void PrecedingKernel() {
  AllowSuccessors();
  WaitForPredecessors();
}

}  // namespace

// Stands for the kernel before a product of a decode step: what can begin under its tail does.
void PrecedeGemm(cudaStream_t stream) {
  Launch(PrecedingKernel, dim3(1), dim3(kWarp), 0, stream);
}

bool SkinnyGemmServes(const GemmParams& p) {
  return p.m > 0 && p.m <= kMaxTiles * kRows && p.w.dtype == DType::kBf16 &&
         p.w.n % kOutputs == 0 && p.w.k % kStep == 0 && p.lda % 8 == 0 &&
         reinterpret_cast<uintptr_t>(p.a) % 16 == 0;
}

void SkinnyGemm(const GemmParams& p, cudaStream_t stream) {
  SPIN_CHECK(SkinnyGemmServes(p));
  const dim3 grid(static_cast<unsigned>(p.w.n / kOutputs));
  if (p.m <= kRows) {
    Launch(SkinnyKernel<1, 8>, grid, dim3(kThreads), 0, stream, p);
  } else {
    Launch(SkinnyKernel<2, 5>, grid, dim3(kThreads), 0, stream, p);
  }
}

}  // namespace spin::cuda
