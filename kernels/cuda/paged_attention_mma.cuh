// A warp's share of paged attention on the tensor cores: 16 tokens a step, keys on the M side of mma.m16n8k16 and the
// up to 8 query heads of a group on its N side, straight from global memory into fragment registers.
//
//   S^T [16 keys x 8 q]  = K   [16 keys x D] * Q^T [D x 8 q]
//   O^T [D x 8 q]       += V^T [D x 16 keys] * P^T [16 keys x 8 q]
//
// Fragments are permuted so that each lane reads whole 16-byte chunks (8 dimensions), every 32-byte sector once. With
// r = lane / 4 and c = lane % 4:
//   keys    lane reads chunks c + 4 i of key rows r and r + 8. A product's order of dimensions is free as long as the
//           queries come in the same order: the lane holds the same chunks of query head r.
//   values  lane reads chunks r + 8 i of rows 2c, 2c + 1, 2c + 8, 2c + 9; byte permutation pairs two tokens' words into
//           two A registers. Which dimension is which row of O^T is free too: a lane ends up with 8 consecutive ones.
//   P       leaves the first product as C fragment (row = key); packed to bf16 and transposed by movmatrix it is the B
//           fragment of the second.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace spin::cuda {

constexpr int kStepTokens = 16;  // a warp's step; two runs of 8, since a page holds a multiple of 8
constexpr int kMaxGroup = 8;     // query heads of a KV head

__device__ __forceinline__ uint32_t TransposeFragment(uint32_t fragment) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(fragment));
  return transposed;
}

// The lanes of a warp that hold the same query heads (equal c): the reductions over keys.
__device__ __forceinline__ float MaxOverKeys(float value) {
#pragma unroll
  for (int offset = 4; offset < kWarp; offset *= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}
__device__ __forceinline__ float SumOverKeys(float value) {
#pragma unroll
  for (int offset = 4; offset < kWarp; offset *= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

// Where a step's tokens 0-7 and 8-15 are, in the pool counted in runs of eight tokens of a plane: an index, so that it
// takes one register, and one multiplication makes an address of it.
struct StepRuns {
  int run[2];
};

// A lane's part of the keys, or of the values, of 16 tokens. LaneOffset: its first byte in a plane's first run.
template <int D>
struct KeyFragment {
  uint4 row[2][D / 32];

  static __device__ __forceinline__ int LaneOffset(int lane) {
    return lane / 4 * (2 * D) + lane % 4 * 16;
  }
  __device__ __forceinline__ void Load(const char* lane_pool, const StepRuns& at) {
#pragma unroll
    for (int run = 0; run < 2; ++run) {
      const char* from = lane_pool + int64_t{at.run[run]} * (16 * D);
#pragma unroll
      for (int i = 0; i < D / 32; ++i) row[run][i] = LoadOnce(from + 64 * i);
    }
  }
};
template <int D>
struct ValueFragment {
  uint4 row[4][D / 64];

  static __device__ __forceinline__ int LaneOffset(int lane) {
    return lane % 4 * (4 * D) + lane / 4 * 16;
  }
  __device__ __forceinline__ void Load(const char* lane_pool, const StepRuns& at) {
#pragma unroll
    for (int token = 0; token < 4; ++token) {
      const char* from = lane_pool + int64_t{at.run[token / 2]} * (16 * D) + token % 2 * (2 * D);
#pragma unroll
      for (int i = 0; i < D / 64; ++i) row[token][i] = LoadOnce(from + 128 * i);
    }
  }

  // Values of tokens >= valid (of the 16) become zero, whatever is in memory there.
  __device__ __forceinline__ void Mask(int valid, int lane) {
#pragma unroll
    for (int token = 0; token < 4; ++token) {
      Keep(token, lane % 4 * 2 + token % 2 + token / 2 * 8 < valid);
    }
  }
  // The same of tokens whose bit of `attended` is 0.
  __device__ __forceinline__ void MaskBits(uint32_t attended, int lane) {
    attended >>= lane % 4 * 2;
#pragma unroll
    for (int token = 0; token < 4; ++token) {
      Keep(token, (attended >> (token % 2 + token / 2 * 8) & 1) != 0);
    }
  }

 private:
  __device__ __forceinline__ void Keep(int token, bool keep) {
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
      uint4& v = row[token][i];
      v = {keep ? v.x : 0, keep ? v.y : 0, keep ? v.z : 0, keep ? v.w : 0};
    }
  }
};

// Running softmax of a warp's tokens, for query heads 2c and 2c + 1: out = sum / weight, relative to exp2(max).
// `weight` is of the lane's own keys until it is reduced over them.
template <int D>
struct Attention {
  float max[2];
  float weight[2];
  float sum
      [D / 16]
      [4];  // tile 4 i + w: dimensions 8 (r + 8 i) + 2 w (+ 1 in [2], [3]) of head 2c (2c + 1 in [1], [3])

  __device__ __forceinline__ void Reset() {
    max[0] = max[1] = -INFINITY;
    weight[0] = weight[1] = 0;
#pragma unroll
    for (int t = 0; t < D / 16; ++t) sum[t][0] = sum[t][1] = sum[t][2] = sum[t][3] = 0;
  }

  // scores[4] becomes the two B registers of exp2(score * scale - max), the state relative to the new maximum. A key
  // may stand for several tokens: the lane's two, r and r + 8, for so many each.
  __device__ __forceinline__ void AddScores(const float (&scores)[4], float scale, uint32_t (&p)[2],
                                            float low_tokens = 1, float high_tokens = 1) {
    float e[4], rescale[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float now = fmaxf(max[j], scale * MaxOverKeys(fmaxf(scores[j], scores[j + 2])));
      rescale[j] = Exp2(max[j] - now);
      max[j] = now;
      e[j] = low_tokens * Exp2(fmaf(scores[j], scale, -now));
      e[j + 2] = high_tokens * Exp2(fmaf(scores[j + 2], scale, -now));
    }
    p[0] = PackBf16(e[0], e[1]);
    p[1] = PackBf16(e[2], e[3]);
    // The sum of what the values are multiplied with: weights that add up to one.
    weight[0] = fmaf(weight[0], rescale[0], LowBf16(p[0]) + LowBf16(p[1]));
    weight[1] = fmaf(weight[1], rescale[1], HighBf16(p[0]) + HighBf16(p[1]));
    p[0] = TransposeFragment(p[0]);
    p[1] = TransposeFragment(p[1]);
#pragma unroll
    for (int t = 0; t < D / 16; ++t) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[t][j] *= rescale[j % 2];
    }
  }

  __device__ __forceinline__ void AddValues(const ValueFragment<D>& values,
                                            const uint32_t (&p)[2]) {
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
      const uint32_t* v[4];
#pragma unroll
      for (int token = 0; token < 4; ++token) {
        v[token] = reinterpret_cast<const uint32_t*>(&values.row[token][i]);
      }
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        Multiply(sum[4 * i + w], __byte_perm(v[0][w], v[1][w], 0x5410),
                 __byte_perm(v[0][w], v[1][w], 0x7632), __byte_perm(v[2][w], v[3][w], 0x5410),
                 __byte_perm(v[2][w], v[3][w], 0x7632), p[0], p[1]);
      }
    }
  }

  // Writes the state of the group's heads: sum[head][stride], max[head], weight[head]. Dimensions are in SumOrder, word
  // by word: no register has to move to a neighbour's side, and with a stride of 4 (mod 16) no two lanes meet in a
  // bank.
  __device__ __forceinline__ void Write(float* sums, int stride, float* maxima, float* weights,
                                        int group, int lane) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int head = 2 * (lane % 4) + j;
      const float total = SumOverKeys(weight[j]);
      if (head >= group) continue;
      if (lane < 4) {
        maxima[head] = max[j];
        weights[head] = total;
      }
      float* to = sums + head * stride + lane / 4;
#pragma unroll
      for (int t = 0; t < D / 16; ++t) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          to[(t % 4 * 2 + odd) * (D / 8) + t / 4 * 8] = sum[t][j + 2 * odd];
        }
      }
    }
  }
};

// The dimension at place `i` of sums as they are written: first of every chunk, second of every chunk, ...
template <int D>
__device__ __forceinline__ constexpr int SumOrder(int i) {
  return i % (D / 8) * 8 + i / (D / 8);
}

// S^T of 16 keys; queries[i][lane] are the lane's chunks of the query heads, zero for heads that are none. Two chains.
template <int D>
__device__ __forceinline__ void Scores(const KeyFragment<D>& keys, const uint4 (*queries)[kWarp],
                                       int lane, float (&scores)[4]) {
  float odd[4] = {0, 0, 0, 0};
  scores[0] = scores[1] = scores[2] = scores[3] = 0;
#pragma unroll
  for (int i = 0; i < D / 32; ++i) {
    const uint4 a = keys.row[0][i], b = keys.row[1][i], q = queries[i][lane];
    Multiply(scores, a.x, b.x, a.y, b.y, q.x, q.y);
    Multiply(odd, a.z, b.z, a.w, b.w, q.z, q.w);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) scores[j] += odd[j];
}

// Scores of tokens >= valid (of the 16) become minus infinity, whatever their keys are.
__device__ __forceinline__ void MaskScores(float (&scores)[4], int valid, int lane) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (lane / 4 + j / 2 * 8 >= valid) scores[j] = -INFINITY;
  }
}

// The same of tokens whose bit of `attended` is 0.
__device__ __forceinline__ void MaskScoreBits(float (&scores)[4], uint32_t attended, int lane) {
  attended >>= lane / 4;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if ((attended >> (j / 2 * 8) & 1) == 0) scores[j] = -INFINITY;
  }
}

}  // namespace spin::cuda
