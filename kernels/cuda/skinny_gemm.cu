// Linear layers of a few rows: c = a w^T, or c += a w^T, with m <= 16 rows of bf16. Weights are read once, so the floor
// is their bytes over the bandwidth.
//
// A CTA computes 16 outputs of all rows; its eight warps split k, each a contiguous run of 32-element steps, and add up
// in order of warp through shared memory. Weights go from global memory into the registers of the product that uses
// them: a product's order of k is free as long as both operands have the same, so that a lane takes 16 consecutive
// bytes of each operand (k = 8 q .. 8 q + 7 of the step for lane q of four) where the instruction's own layout would
// scatter words. Each lane keeps kStages steps in flight: 56 KiB of weights a CTA, two CTAs a
// multiprocessor; or 24 KiB, four CTAs, so that small products find room beside their predecessor's.
//
// Weights never change while kernels run: their first loads are issued before the wait for predecessors, under whose
// tail they arrive.
#include <algorithm>

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
// ended; then read_more() is called, then rows are read.
template <int kTiles, int kStages, typename ReadMore>
__device__ __forceinline__ void MultiplySlice(const Operands<kTiles>& from, int count,
                                              ReadMore read_more, float (&sum)[kTiles][4]) {
  Stage<kTiles> stages[kStages];
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    if (i < count) from.LoadWeights(i, stages[i]);
  }
  WaitForPredecessors();
  AllowSuccessors();
  read_more();
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

template <int kTiles, int kStages, int kCtas>
__global__ void __launch_bounds__(kThreads, kCtas) SkinnyKernel(const GemmParams p) {
  constexpr int kWidth = kTiles * kRows;
  __shared__ float partial[kWarps][kOutputs][kWidth + 1];
  __shared__ float before[kThreads];  // of the thread's output, where it is added to
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
  const int row = static_cast<int>(threadIdx.x) / kOutputs,  // the thread's output
      output = static_cast<int>(threadIdx.x) % kOutputs;
  float sum[kTiles][4] = {};
  MultiplySlice<kTiles, kStages>(
      from, count,
      [&] {
        if (p.accumulate && row < min(p.m, kWidth)) {
          CopyWord(SharedAddress(before + threadIdx.x),
                   static_cast<const float*>(p.c) + row * p.ldc + n + output);
          CommitCopies();
        }
      },
      sum);

#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      partial[warp][group + i / 2 * 8][t * kRows + quarter * 2 + i % 2] = sum[t][i];
    }
  }
  WaitCopies<0>();
  __syncthreads();
  if (row >= min(p.m, kWidth)) return;
  const int64_t at = row * p.ldc + n + output;
  float total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += partial[i][output][row];
  if (p.c_dtype == DType::kBf16) {
    static_cast<Bf16*>(p.c)[at] = FromFloat<Bf16>(total);
  } else {
    static_cast<float*>(p.c)[at] = p.accumulate ? before[threadIdx.x] + total : total;
  }
}
static_assert(kMaxTiles * kRows * kOutputs <= kThreads);

__global__ void __launch_bounds__(kThreads) ReadKernel(const uint4* from, int64_t pieces) {
  WaitForPredecessors();
  AllowSuccessors();
  uint32_t seen = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < pieces;
       i += int64_t{gridDim.x} * kThreads) {
    seen |= __ldcg(from + i).x;
  }
  asm volatile("" ::"r"(seen));
}

}  // namespace

void ReadThrough(const void* from, int64_t bytes, cudaStream_t stream) {
  constexpr int64_t kPiece = sizeof(uint4);
  const int64_t skipped = -static_cast<int64_t>(reinterpret_cast<uintptr_t>(from)) & (kPiece - 1);
  const int64_t pieces = std::max<int64_t>(bytes - skipped, 0) / kPiece;
  const int64_t blocks =
      std::clamp<int64_t>(CeilDiv<int64_t>(pieces, kThreads), 1, 4 * Traits().num_sms);
  Launch(ReadKernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream,
         reinterpret_cast<const uint4*>(static_cast<const char*>(from) + skipped), pieces);
}

int NumSkinnyGemms(const GemmParams& p) {
  const bool serves = p.m > 0 && p.m <= kMaxTiles * kRows && p.w.dtype == DType::kBf16 &&
                      p.w.n % kOutputs == 0 && p.w.k % kStep == 0 && p.lda % 8 == 0 &&
                      reinterpret_cast<uintptr_t>(p.a) % 16 == 0;
  return !serves ? 0 : p.m <= kRows ? 2 : 1;
}

void SkinnyGemm(const GemmParams& p, int which, cudaStream_t stream) {
  SPIN_CHECK_LT(which, NumSkinnyGemms(p));
  const dim3 grid(static_cast<unsigned>(p.w.n / kOutputs));
  const auto kernel = p.m > kRows  ? SkinnyKernel<2, 5, 2>
                      : which == 0 ? SkinnyKernel<1, 7, 2>
                                   : SkinnyKernel<1, 3, 4>;
  Launch(kernel, grid, dim3(kThreads), 0, stream, p);
}

}  // namespace spin::cuda
