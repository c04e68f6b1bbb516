// 16 floats at a time, by the compiler's vector types, and one body compiled for three instruction
// sets.
//
// The types are lowered to whatever the set has, so a body has the same lanes and the same order of
// additions everywhere; sets differ only by fused multiply-add, where a target allows contraction.
// The variant is chosen once, by what the processor reports. (GCC's target_clones would do the same
// through ifunc resolvers, which the sanitizers cannot run.)
#pragma once

#include <cstdint>

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
