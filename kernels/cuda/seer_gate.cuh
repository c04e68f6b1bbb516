// The gate of SeerAttention-R on the device (SeerGate in params.h): what Index and Select share. Sixteen vectors are
// projected at once, on tensor cores in bfloat16: they are the rows of a, 16 x K in shared memory, the weights of eight
// outputs the columns of b, straight from global memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/params.h"

namespace spin::cuda::seer {

constexpr int kTileRows = 16;

// Elements from a row of the tile to the next: two rows that are read together lie in different banks.
template <typename T>
constexpr int TileStride(int inputs) {
  return inputs + 64 / static_cast<int>(sizeof(T));
}

// Adds to c, in lane 4 g + t, the products of rows g (c[0], c[1]) and g + 8 (c[2], c[3]) with outputs 2 t and 2 t + 1
// of eight, over inputs begin .. end - 1, multiples of 32. `tile`: the rows; `weights` [8][inputs]. A row with no
// meaning gives results with no meaning, and touches no other.
__device__ __forceinline__ void AddProducts(const Bf16* tile, const Bf16* weights, int inputs,
                                            int begin, int end, float (&c)[4]) {
  // A product does not care in which order k is gone through: a lane's 16-byte pieces are its fragments as they come.
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int stride = TileStride<Bf16>(inputs);
  const Bf16* low = tile + lane / 4 * stride + 8 * (lane % 4);
  const Bf16* high = low + 8 * stride;
  const Bf16* w = weights + int64_t{lane / 4} * inputs + 8 * (lane % 4);
#pragma unroll 4
  for (int i = begin; i < end; i += 32) {
    const uint4 b = *reinterpret_cast<const uint4*>(w + i);
    const uint4 a0 = *reinterpret_cast<const uint4*>(low + i);
    const uint4 a1 = *reinterpret_cast<const uint4*>(high + i);
    Multiply(c, a0.x, a1.x, a0.y, a1.y, b.x, b.y);
    Multiply(c, a0.z, a1.z, a0.w, a1.w, b.z, b.w);
  }
}

// Float32: the same lanes hold the same products, each summed by its lane alone.
__device__ __forceinline__ void AddProducts(const float* tile, const float* weights, int inputs,
                                            int begin, int end, float (&c)[4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int stride = TileStride<float>(inputs);
  const float* low = tile + lane / 4 * stride;
  const float* high = low + 8 * stride;
  const float* even = weights + int64_t{2 * (lane % 4)} * inputs;
  const float* odd = even + inputs;
  for (int i = begin; i < end; ++i) {
    c[0] += low[i] * even[i];
    c[1] += low[i] * odd[i];
    c[2] += high[i] * even[i];
    c[3] += high[i] * odd[i];
  }
}

// kPer neighbouring elements, as they are loaded.
template <typename T, int kPer>
struct Channels;
template <>
struct Channels<Bf16, 1> {
  __device__ void Load(const Bf16* from) { value = *from; }
  __device__ float operator[](int) const { return __bfloat162float(value); }
  Bf16 value;
};
template <>
struct Channels<Bf16, 2> {
  __device__ void Load(const Bf16* from) { word = *reinterpret_cast<const uint32_t*>(from); }
  __device__ float operator[](int i) const { return i == 0 ? LowBf16(word) : HighBf16(word); }
  uint32_t word;
};
template <>
struct Channels<float, 1> {
  __device__ void Load(const float* from) { value = *from; }
  __device__ float operator[](int) const { return value; }
  float value;
};
template <>
struct Channels<float, 2> {
  __device__ void Load(const float* from) { pair = *reinterpret_cast<const float2*>(from); }
  __device__ float operator[](int i) const { return i == 0 ? pair.x : pair.y; }
  float2 pair;
};

// One lane's channels of a head and their angles at a position: channels kPer lane .. of each half. A warp holds a
// head.
template <typename T, int kDim>
struct HeadPart {
  static constexpr int kHalf = kDim / 2;
  static constexpr int kPer = kHalf / kWarp;

  __device__ void Load(const T* head, const float* table_row) {
    const int at = kPer * static_cast<int>(threadIdx.x % kWarp);
    low.Load(head + at);
    high.Load(head + kHalf + at);
    cosine.Load(table_row + at);
    sine.Load(table_row + kHalf + at);
  }
  // The channels as they were before rotation: x[0][i] of the lower half, x[1][i] of the upper.
  __device__ void RotateBack(float inverse, float (&x)[2][kPer]) const {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const float c = cosine[i] * inverse, s = sine[i] * inverse;
      x[0][i] = low[i] * c + high[i] * s;
      x[1][i] = high[i] * c - low[i] * s;
    }
  }

  Channels<T, kPer> low, high;
  Channels<float, kPer> cosine, sine;
};

}  // namespace spin::cuda::seer
