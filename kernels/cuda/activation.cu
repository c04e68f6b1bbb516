// SwiGLU: silu(gate) * up. Floor: 6 bytes an output in bf16 over the copy bandwidth; 16 bytes a lane.
#include <algorithm>

#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float SiluMulOne(float gate, float up) {
  return gate / (1.0f + expf(-gate)) * up;
}

__device__ __forceinline__ uint32_t SiluMulPair(uint32_t gate, uint32_t up) {
  return PackBf16(SiluMulOne(LowBf16(gate), LowBf16(up)), SiluMulOne(HighBf16(gate), HighBf16(up)));
}

// A thread has 8 outputs; x runs over a row, y over rows. REQUIRES: width % 8 == 0.
__global__ void __launch_bounds__(kThreads) SiluMulVectors(SiluMulParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const int32_t c = (blockIdx.x * kThreads + threadIdx.x) * 8;
  if (c >= p.width) return;
  const Bf16* gate = static_cast<const Bf16*>(p.gate_up) + int64_t{blockIdx.y} * 2 * p.width + c;
  const uint4 g = LoadStreaming(gate);
  const uint4 u = LoadStreaming(gate + p.width);
  *reinterpret_cast<uint4*>(static_cast<Bf16*>(p.out) + int64_t{blockIdx.y} * p.width + c) =
      make_uint4(SiluMulPair(g.x, u.x), SiluMulPair(g.y, u.y), SiluMulPair(g.z, u.z),
                 SiluMulPair(g.w, u.w));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) SiluMulAny(SiluMulParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const int32_t c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= p.width) return;
  const T* gate = static_cast<const T*>(p.gate_up) + int64_t{blockIdx.y} * 2 * p.width + c;
  static_cast<T*>(p.out)[int64_t{blockIdx.y} * p.width + c] =
      FromFloat<T>(SiluMulOne(ToFloat(gate[0]), ToFloat(gate[p.width])));
}

}  // namespace

void SiluMul(const SiluMulParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  const auto rows = static_cast<unsigned>(p.n);  // at most a prefill tile
  SPIN_CHECK_LE(p.n, kMaxTileTokens);
  const auto blocks = [](int32_t n) {
    return static_cast<unsigned>((n + kThreads - 1) / kThreads);
  };
  if (p.dtype == DType::kBf16 && p.width % 8 == 0) {
    Launch(SiluMulVectors, dim3(blocks(p.width / 8), rows), kThreads, 0, stream, p);
  } else {
    Launch(p.dtype == DType::kF32 ? SiluMulAny<float> : SiluMulAny<Bf16>,
           dim3(blocks(p.width), rows), kThreads, 0, stream, p);
  }
}

}  // namespace spin::cuda
