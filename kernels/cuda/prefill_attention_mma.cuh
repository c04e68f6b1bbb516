// Tiles of prefill attention on the tensor cores: swizzled shared memory, its fragments, the products on them.
#pragma once

#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {

// [rows][D] bf16 in shared memory, 16-byte chunks of a row permuted by the row's low bits: eight rows of one chunk lie
// in different banks.
template <int D>
struct SharedTile {
  static constexpr int kChunks = D / 8;
  Bf16* data;

  __device__ __forceinline__ uint32_t At(int row, int chunk) const {
    const Bf16* p = data + row * D + (chunk ^ (row & 7)) * 8;
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
  }
  __device__ __forceinline__ uint4* Chunk(int row, int chunk) const {
    return reinterpret_cast<uint4*>(data + row * D + (chunk ^ (row & 7)) * 8);
  }
};

// 16 bytes from global to shared memory, asynchronously; zeros where `valid` is false.
__device__ __forceinline__ void CopyAsync(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;");
}
template <int kPending>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}

// c [16 x 8] += a [16 x 16] * b [16 x 8].
__device__ __forceinline__ void MmaTile(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace spin::cuda
