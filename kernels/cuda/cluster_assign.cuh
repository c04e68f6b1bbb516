// Which centroid a token is nearest to: a warp holds 32 tokens in registers and meets centroids block by block in
// shared memory; of the products only the largest of each token is kept, so that no matrix of scores ever is in memory.
//
//   [16 tokens x d] * [d x 8 centroids]      tokens on the M side of mma.m16n8k16, centroids on its N side
//
// A product does not care in which order the dimensions come, so a lane's 16-byte pieces t, t + 4, t + 8.. of its
// tokens' keys are fragments as they come from memory, and the same pieces of a centroid those that match them.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/params.h"

namespace spin::cuda {

constexpr int kTileTokens = 32;     // of a warp
constexpr int kBlockClusters = 32;  // of a block of centroids
static_assert(kExtentTokens % kTileTokens == 0, "a segment has no tile that is not full");
static_assert(kExtentTokens / kClusterTokens % kBlockClusters == 0, "nor such a block");

// A block of centroids in shared memory. Piece c of row r lies at place c ^ 4 (r % 2): the eight lanes that a
// conflict-free 16-byte access has together read pieces t .. t + 3 of two rows.
template <typename T, int kDim>
struct CentroidBlock {
  static constexpr int kPitch = kDim * static_cast<int>(sizeof(T));
  static constexpr int kPieces = kPitch / 16;  // of a centroid
  static constexpr int kBytes = kBlockClusters * kPitch;

  static __device__ __forceinline__ int Offset(int row, int piece) {
    return row * kPitch + ((piece ^ ((row & 1) << 2)) << 4);
  }
};

// What is clustered: a key without the segment's mean, rounded to the pages' type. 16 bytes of it.
template <typename T>
__device__ __forceinline__ uint4 Centered(const uint4& key, const float* mean) {
  float x[kPieceElements<T>];
  UnpackPiece<T>(key, x);
#pragma unroll
  for (int c = 0; c < kPieceElements<T>; ++c) x[c] -= mean[c];
  return RoundToPiece<T>(x);
}

// The largest products so far of a lane's four tokens, lane / 4 + 8 i of the tile, over the lane's columns; and whose
// they were. Ties go to the lower id, and so does NaN.
struct Nearest {
  float product[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  int32_t id[4] = {};

  // REQUIRES: ids ascend from call to call.
  __device__ __forceinline__ void Take(int i, float x, int32_t centroid) {
    const bool greater = x > product[i];
    product[i] = greater ? x : product[i];
    id[i] = greater ? centroid : id[i];
  }

  // Over all columns: the nearest of token `lane` of the tile. Whole warp.
  __device__ __forceinline__ int32_t OfLane() {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
#pragma unroll
    for (int offset = 1; offset < 4; offset *= 2) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float x = __shfl_xor_sync(kAllLanes, product[i], offset);
        const int32_t other = __shfl_xor_sync(kAllLanes, id[i], offset);
        const bool better = x > product[i] || (x == product[i] && other < id[i]);
        product[i] = better ? x : product[i];
        id[i] = better ? other : id[i];
      }
    }
    // Lane 4 r + i gives token r + 8 i.
    const int32_t low = lane & 1 ? id[1] : id[0], high = lane & 1 ? id[3] : id[2];
    return __shfl_sync(kAllLanes, lane & 2 ? high : low, lane % 8 * 4 + lane / 8);
  }
};

// A warp's tile of tokens, whose keys lie one behind the other.
template <typename T, int kDim>
class TokenTile;

template <int kDim>
class TokenTile<Bf16, kDim> {
 public:
  __device__ __forceinline__ void Load(const Bf16* keys, const float* mean) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const auto* pieces = reinterpret_cast<const uint4*>(keys + lane / 4 * kDim) + lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < kSteps; ++j) piece_[i][j] = pieces[i * kDim + 4 * j];
    }
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      float m[8];
#pragma unroll
      for (int c = 0; c < 8; ++c) m[c] = mean[8 * (lane % 4 + 4 * j) + c];
#pragma unroll
      for (int i = 0; i < 4; ++i) piece_[i][j] = Centered<Bf16>(piece_[i][j], m);
    }
  }

  // The tile's products with a block of centroids, the first of which is `first`.
  __device__ __forceinline__ void Meet(const char* block, int32_t first, Nearest& nearest) const {
    using Block = CentroidBlock<Bf16, kDim>;
    const int row = static_cast<int>(threadIdx.x % kWarp / 4),
              t = static_cast<int>(threadIdx.x % 4);
#pragma unroll 1
    for (int n = 0; n < kBlockClusters; n += 16) {
      float c[2][2][4] = {};  // [eight centroids][sixteen tokens]: four chains
#pragma unroll
      for (int j = 0; j < kSteps; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const auto& b = *reinterpret_cast<const uint4*>(block + n * Block::kPitch +
                                                          Block::Offset(8 * e + row, t + 4 * j));
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const uint4 &low = piece_[2 * r][j], &high = piece_[2 * r + 1][j];
            Multiply(c[e][r], low.x, high.x, low.y, high.y, b.x, b.y);
            Multiply(c[e][r], low.z, high.z, low.w, high.w, b.z, b.w);
          }
        }
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int32_t id = first + n + 8 * e + 2 * t + i % 2;
          nearest.Take(i / 2, c[e][0][i], id);
          nearest.Take(2 + i / 2, c[e][1][i], id);
        }
      }
    }
  }

 private:
  static constexpr int kSteps = kDim / 32;

  uint4 piece_[4][kSteps];  // of tokens lane / 4 + 8 i: pieces lane % 4 + 4 j
};

// Float32, for tests of numerics: the same lanes have the same products, each summed by its lane alone.
template <int kDim>
class TokenTile<float, kDim> {
 public:
  __device__ __forceinline__ void Load(const float* keys, const float* mean) {
    keys_ = keys + static_cast<int>(threadIdx.x % kWarp / 4) * kDim;
    mean_ = mean;
  }

  __device__ __forceinline__ void Meet(const char* block, int32_t first, Nearest& nearest) const {
#pragma unroll 1
    for (int n = 0; n < kBlockClusters; n += 8) {
      const int column = n + 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float even = 0, odd = 0;
#pragma unroll 4
        for (int c = 0; c < kDim; ++c) {
          const float x = keys_[8 * i * kDim + c] - mean_[c];
          even = fmaf(x, Element(block, column, c), even);
          odd = fmaf(x, Element(block, column + 1, c), odd);
        }
        nearest.Take(i, even, first + column);
        nearest.Take(i, odd, first + column + 1);
      }
    }
  }

 private:
  static __device__ __forceinline__ float Element(const char* block, int row, int c) {
    const char* piece = block + CentroidBlock<float, kDim>::Offset(row, c / 4);
    return reinterpret_cast<const float*>(piece)[c % 4];
  }

  const float* keys_;
  const float* mean_;
};

}  // namespace spin::cuda
