// Small device arithmetic that the kernels share: element conversion, 16-byte access, warp reductions.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

namespace spin::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

using Bf16 = __nv_bfloat16;

__device__ __forceinline__ float ToFloat(float value) {
  return value;
}
__device__ __forceinline__ float ToFloat(Bf16 value) {
  return __bfloat162float(value);
}
template <typename T>
__device__ __forceinline__ T FromFloat(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return __float2bfloat16_rn(value);
  }
}

// What undoes the magnitude of a rotation and back: the cosine of position 0 is the table's magnitude.
__device__ __forceinline__ float InverseMagnitude(const float* rope_table) {
  return 1.0f / (rope_table[0] * rope_table[0]);
}

// The two bf16 of a 32-bit word, as floats.
__device__ __forceinline__ float LowBf16(uint32_t word) {
  return __uint_as_float(word << 16);
}
__device__ __forceinline__ float HighBf16(uint32_t word) {
  return __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// The elements of 16 bytes as floats.
template <typename T>
constexpr int kPieceElements = 16 / sizeof(T);
template <typename T>
__device__ __forceinline__ void UnpackPiece(const uint4& from, float (&to)[kPieceElements<T>]) {
  const uint32_t words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      to[i] = __uint_as_float(words[i]);
    } else {
      to[2 * i] = LowBf16(words[i]);
      to[2 * i + 1] = HighBf16(words[i]);
    }
  }
}
// And back, rounded to nearest.
template <typename T>
__device__ __forceinline__ uint4 RoundToPiece(const float (&from)[kPieceElements<T>]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(from[i]);
    } else {
      words[i] = PackBf16(from[2 * i], from[2 * i + 1]);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

// Streaming 16-byte access: data that is read or written once and should not push weights out of the cache.
__device__ __forceinline__ uint4 LoadStreaming(const void* from) {
  return __ldcs(static_cast<const uint4*>(from));
}
// 16 bytes that are read once and that no thread of the kernel writes: past L1, the rest of the 128-byte line on its
// way to L2 meanwhile.
__device__ __forceinline__ uint4 LoadOnce(const char* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
// The 128-byte line of an address on its way to L2, where later stores to it still reach it.
__device__ __forceinline__ void PrefetchLine(const char* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}
__device__ __forceinline__ void StoreStreaming(void* to, uint4 value) {
  __stcs(static_cast<uint4*>(to), value);
}

template <typename T>
__device__ __forceinline__ T WarpSum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}
__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

}  // namespace spin::cuda
