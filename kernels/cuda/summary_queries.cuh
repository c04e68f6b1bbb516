// Products of the query heads of a KV head with the summaries of its pages, 16 summaries a warp at a time: upper bounds
// from a maximum and a minimum a channel, or plain products with a mean or a cluster's centroid.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/params.h"

namespace spin::cuda {

// The queries of a group, ready to score tiles of 16 summaries. Score leaves in lane l = 4 g + t the unscaled logits
//   c[0], c[1]: summary g     of query heads 2 t, 2 t + 1
//   c[2], c[3]: summary g + 8 likewise
// from the lane's two summaries `low` = g and `high` = g + 8; null: there is none, and its logits mean nothing.
template <typename T, int kDim, SummaryKind kKind>
class Queries;

// On tensor cores: the summaries are the 16 rows of a, the heads the 8 columns of b. A product does not care in which
// order k is gone through, so a lane's 16-byte pieces t, t + 4, t + 8... of its two summaries are fragments of a as
// they come from memory, and the same pieces of query head g the fragments of b that match them. For bounds a query has
// the shape of a summary: its positive part, then its negative one.
template <int kDim, SummaryKind kKind>
class Queries<Bf16, kDim, kKind> {
 public:
  // The lanes' fragments, the same in every warp: registers are for summaries.
  struct Shared {
    uint4 query[(kKind == SummaryKind::kBounds ? 2 : 1) * kDim / 32][kWarp];
  };

  // All threads, at least kDim / 32 warps, which meet before the first Score.
  __device__ Queries(const Bf16* q, int32_t heads, Shared& shared) : shared_(shared) {
    const int lane = static_cast<int>(threadIdx.x % kWarp), head = lane / 4;
    const int i = static_cast<int>(threadIdx.x / kWarp);
    if (i >= kDim / 32) return;
    const uint4* pieces = reinterpret_cast<const uint4*>(q + head * kDim) + lane % 4;
    const uint4 piece = head < heads ? pieces[4 * i] : uint4{};
    if constexpr (kKind == SummaryKind::kBounds) {
      const uint4 negative = {Negative(piece.x), Negative(piece.y), Negative(piece.z),
                              Negative(piece.w)};
      shared_.query[i][lane] = {piece.x ^ negative.x, piece.y ^ negative.y, piece.z ^ negative.z,
                                piece.w ^ negative.w};
      shared_.query[i + kDim / 32][lane] = negative;
    } else {
      shared_.query[i][lane] = piece;
    }
  }

  __device__ void Score(const char* low, const char* high, float (&c)[4]) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp), offset = 16 * (lane % 4);
    uint4 a[2][kPieces];  // all of the tile, in flight together
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      a[0][i] = low != nullptr ? LoadOnce(low + offset + 64 * i) : uint4{};
      a[1][i] = high != nullptr ? LoadOnce(high + offset + 64 * i) : uint4{};
    }
    float first[4] = {}, second[4] = {};  // two chains, half as long
#pragma unroll
    for (int i = 0; i < kPieces / 2; ++i) {
      const int j = i + kPieces / 2;
      Add(first, a[0][i], a[1][i], shared_.query[i][lane]);
      Add(second, a[0][j], a[1][j], shared_.query[j][lane]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = first[i] + second[i];
  }

 private:
  static constexpr int kPieces =
      (kKind == SummaryKind::kBounds ? 2 : 1) * kDim / 32;  // a lane, of a summary

  // The negative ones of two numbers, 0 for the others.
  static __device__ uint32_t Negative(uint32_t pair) {
    return pair & ((pair >> 15 & 0x00010001u) * 0xffffu);
  }
  static __device__ void Add(float (&c)[4], const uint4& low, const uint4& high, const uint4& q) {
    Multiply(c, low.x, high.x, low.y, high.y, q.x, q.y);
    Multiply(c, low.z, high.z, low.w, high.w, q.z, q.w);
  }

  Shared& shared_;
};

// Float32: the same lanes hold the same logits, each summed by its lane alone.
template <int kDim, SummaryKind kKind>
class Queries<float, kDim, kKind> {
 public:
  struct Shared {};

  __device__ Queries(const float* q, int32_t heads, Shared&) {
    const int head = 2 * static_cast<int>(threadIdx.x % 4);
    even_ = q + (head < heads ? head : 0) * kDim;
    odd_ = q + (head + 1 < heads ? head + 1 : 0) * kDim;
  }

  __device__ void Score(const char* low, const char* high, float (&c)[4]) const {
    c[0] = c[1] = c[2] = c[3] = 0;
    if (low != nullptr) Add(reinterpret_cast<const float*>(low), c[0], c[1]);
    if (high != nullptr) Add(reinterpret_cast<const float*>(high), c[2], c[3]);
  }

 private:
  __device__ void Add(const float* summary, float& even, float& odd) const {
#pragma unroll 4
    for (int i = 0; i < kDim; ++i) {
      even += Term(even_[i], summary + i);
      odd += Term(odd_[i], summary + i);
    }
  }
  static __device__ float Term(float q, const float* summary) {
    if constexpr (kKind == SummaryKind::kBounds) {
      return (q < 0 ? 0 : q) * summary[0] +
             (q > 0 ? 0 : q) * summary[kDim];  // 0 times infinity is NaN here, too
    } else {
      return q * summary[0];
    }
  }

  const float* even_;
  const float* odd_;
};

}  // namespace spin::cuda
