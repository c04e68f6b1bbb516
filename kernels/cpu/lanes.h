// 16 floats at a time, by the compiler's vector types, and one body compiled for three instruction
// sets.
//
// The types are lowered to whatever the set has, so a body has the same lanes and the same order of
// additions everywhere; sets differ only by fused multiply-add, where a target allows contraction.
// The variant is chosen once, by what the processor reports. (GCC's target_clones would do the same
// through ifunc resolvers, which the sanitizers cannot run.)
#pragma once

#include <cstdint>
#include <cstring>

namespace spin::cpu {

inline constexpr int kLanes = 16;

using F32x16 = float __attribute__((vector_size(64)));
using I32x16 = int32_t __attribute__((vector_size(64)));
using U32x16 = uint32_t __attribute__((vector_size(64)));
using U16x16 = uint16_t __attribute__((vector_size(32)));
using F32x8 = float __attribute__((vector_size(32)));
using F64x8 = double __attribute__((vector_size(64)));

}  // namespace spin::cpu

#define SPIN_INLINE inline __attribute__((always_inline))

namespace spin::cpu {

// 16 elements, float32 or bfloat16, as floats.
SPIN_INLINE void LoadLanes(const float* from, F32x16& to) {
  std::memcpy(&to, from, sizeof(to));
}
SPIN_INLINE void LoadLanes(const uint16_t* from, F32x16& to) {
  U16x16 half;
  std::memcpy(&half, from, sizeof(half));
  to = (F32x16)(__builtin_convertvector(half, U32x16) << 16);
}

// Their sum, always in this order.
SPIN_INLINE float SumLanes(const F32x16& lanes) {
  F32x8 half[2];
  std::memcpy(half, &lanes, sizeof(half));
  const F32x8 s = half[0] + half[1];
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

}  // namespace spin::cpu

#if defined(__x86_64__)
// Defines `ret name params` as `body`, in the best of three variants. `args` passes the parameters
// on.
#define SPIN_MULTI_ISA(ret, name, params, body, args)                                              \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) ret name##Avx512 params { \
    return body;                                                                                   \
  }                                                                                                \
  __attribute__((target("avx2,fma"))) ret name##Avx2 params {                                      \
    return body;                                                                                   \
  }                                                                                                \
  ret name##Base params {                                                                          \
    return body;                                                                                   \
  }                                                                                                \
  ret name params {                                                                                \
    static const auto variant =                                                                    \
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&                \
                __builtin_cpu_supports("avx512vl")                                                 \
            ? name##Avx512                                                                         \
        : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? name##Avx2             \
                                                                          : name##Base;            \
    return variant args;                                                                           \
  }
#else
#define SPIN_MULTI_ISA(ret, name, params, body, args) \
  ret name params {                                   \
    return body;                                      \
  }
#endif
