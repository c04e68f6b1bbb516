// Sums over tokens, in a fixed order, for the means of a k-means: of a whole segment by a thread block, of a cluster by
// a warp.
#pragma once

#include <cstdint>

#include "kernels/cuda/cluster_assign.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

// A lane's neighbouring elements of a row of kDim: elements kPer * lane ...
template <typename T, int kDim>
struct RowPart {
  static constexpr int kPer = kDim / kWarp;
  static constexpr int kWords = kPer * static_cast<int>(sizeof(T)) / 4;
  struct alignas(4 * kWords) Words {
    uint32_t word[kWords];
  };

  static __device__ __forceinline__ int First() {
    return kPer * static_cast<int>(threadIdx.x % kWarp);
  }
  __device__ __forceinline__ void Load(const T* row) {
    words = *reinterpret_cast<const Words*>(row + First());
  }
  __device__ __forceinline__ void Get(float (&x)[kPer]) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (sizeof(T) == 4) {
        x[i] = __uint_as_float(words.word[i]);
      } else {
        x[2 * i] = LowBf16(words.word[i]);
        x[2 * i + 1] = HighBf16(words.word[i]);
      }
    }
  }
  __device__ __forceinline__ void Set(const float (&x)[kPer]) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (sizeof(T) == 4) {
        words.word[i] = __float_as_uint(x[i]);
      } else {
        words.word[i] = PackBf16(x[2 * i], x[2 * i + 1]);
      }
    }
  }

  Words words;
};

// Calls add(x) with the lane's part of row_of(0), row_of(1).. row_of(count - 1), in that order; kAhead rows in flight.
// Whole warp.
template <typename T, int kDim, int kAhead, typename RowOf, typename Add>
__device__ __forceinline__ void ForEachRow(int32_t count, RowOf row_of, Add add) {
#pragma unroll 1
  for (int32_t begin = 0; begin < count; begin += kAhead) {
    RowPart<T, kDim> part[kAhead];
#pragma unroll
    for (int q = 0; q < kAhead; ++q) {
      if (begin + q < count) part[q].Load(row_of(begin + q));
    }
#pragma unroll
    for (int q = 0; q < kAhead; ++q) {
      if (begin + q < count) {
        float x[RowPart<T, kDim>::kPer];
        part[q].Get(x);
        add(x);
      }
    }
  }
}

// The direction of the mean of a cluster's centered keys, as the next centroid. False: it has none, and stays. `mean`
// is the segment's. Whole warp.
template <typename T, int kDim, int kAhead, typename RowOf>
__device__ __forceinline__ bool NextCentroid(int32_t count, RowOf row_of, const float* mean,
                                             RowPart<T, kDim>& centroid) {
  constexpr int kPer = RowPart<T, kDim>::kPer;
  float off[kPer], sum[kPer] = {};
#pragma unroll
  for (int c = 0; c < kPer; ++c) off[c] = mean[RowPart<T, kDim>::First() + c];
  ForEachRow<T, kDim, kAhead>(count, row_of, [&](const float(&x)[kPer]) {
#pragma unroll
    for (int c = 0; c < kPer; ++c) sum[c] += ToFloat(FromFloat<T>(x[c] - off[c]));
  });
  float squares = 0;
#pragma unroll
  for (int c = 0; c < kPer; ++c) {
    sum[c] /= static_cast<float>(max(count, 1));
    squares += sum[c] * sum[c];
  }
  squares = WarpSum(squares);
  if (!(squares > 0)) return false;
  const float norm = sqrtf(squares);
#pragma unroll
  for (int c = 0; c < kPer; ++c) sum[c] /= norm;
  centroid.Set(sum);
  return true;
}

// The plain mean of a cluster's rows, keys or values. REQUIRES: count > 0. Whole warp.
template <typename T, int kDim, int kAhead, typename RowOf>
__device__ __forceinline__ RowPart<T, kDim> MeanOfRows(int32_t count, RowOf row_of) {
  constexpr int kPer = RowPart<T, kDim>::kPer;
  float sum[kPer] = {};
  ForEachRow<T, kDim, kAhead>(count, row_of, [&](const float(&x)[kPer]) {
#pragma unroll
    for (int c = 0; c < kPer; ++c) sum[c] += x[c];
  });
#pragma unroll
  for (int c = 0; c < kPer; ++c) sum[c] /= static_cast<float>(count);
  RowPart<T, kDim> mean;
  mean.Set(sum);
  return mean;
}

// The record of a cluster, of which lane-wise all is known but the run. Whole warp.
template <typename T, int kDim>
__device__ __forceinline__ void StoreRecord(T* record, ClusterRun run,
                                            const RowPart<T, kDim>& centroid,
                                            const RowPart<T, kDim>& value) {
  using Part = RowPart<T, kDim>;
  if (run.size > 0) {
    *reinterpret_cast<typename Part::Words*>(record + Part::First()) = centroid.words;
    *reinterpret_cast<typename Part::Words*>(record + kDim + Part::First()) = value.words;
  } else if (threadIdx.x % kWarp == 0) {
    record[0] = FromFloat<T>(__int_as_float(0x7fc00000));
  }
  if (threadIdx.x % kWarp == 0) *reinterpret_cast<ClusterRun*>(record + 2 * kDim) = run;
}

// Floats of shared memory that SegmentMean needs: a sum for each thread's piece.
template <typename T, int kThreads>
constexpr int kMeanFloats = kThreads* kPieceElements<T>;

// mean[kDim] (shared memory) of tokens [first, end) of keys that lie one behind the other. Whole block, which may read
// it afterwards.
template <typename T, int kDim, int kThreads>
__device__ __forceinline__ void SegmentMean(const T* keys, int32_t first, int32_t end, float* sums,
                                            float* mean) {
  constexpr int kPer = kPieceElements<T>;
  constexpr int kColumns = kDim / kPer;
  constexpr int kSlices = kThreads / kColumns;  // of the tokens: every so-manieth
  constexpr int kAhead = 8;
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const int slice = static_cast<int>(threadIdx.x) / kColumns;
  const auto* pieces = reinterpret_cast<const uint4*>(keys) + column;
  float sum[kPer] = {};
  for (int32_t begin = first + slice; begin < end; begin += kAhead * kSlices) {
    uint4 piece[kAhead];
#pragma unroll
    for (int q = 0; q < kAhead; ++q) {
      const int32_t token = begin + q * kSlices;
      piece[q] = token < end ? pieces[int64_t{token} * kColumns] : uint4{};
    }
#pragma unroll
    for (int q = 0; q < kAhead; ++q) {
      float x[kPer];
      UnpackPiece<T>(piece[q], x);
#pragma unroll
      for (int c = 0; c < kPer; ++c) sum[c] += x[c];
    }
  }
#pragma unroll
  for (int c = 0; c < kPer; ++c) sums[slice * kDim + column * kPer + c] = sum[c];
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < kDim) {
    float total = 0;
#pragma unroll 8
    for (int s = 0; s < kSlices; ++s) total += sums[s * kDim + threadIdx.x];
    mean[threadIdx.x] = total / static_cast<float>(end - first);
  }
  __syncthreads();
}

// Token of a segment, counted from its first clustered one, that is the first centroid of cluster c of `clusters`.
__device__ __forceinline__ int32_t SeedToken(int32_t c, int32_t clusters, int32_t tokens) {
  return static_cast<int32_t>((2 * c + 1) * int64_t{tokens} / (2 * clusters));
}

}  // namespace spin::cuda
