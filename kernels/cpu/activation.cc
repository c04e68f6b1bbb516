#include "common/check.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/isa.h"

namespace spin::cpu {

void SiluMul(const SiluMulParams& p, ThreadPool& pool) {
  SPIN_CHECK(p.dtype == DType::kF32 || p.dtype == DType::kBf16);
  const KernelTable& kernels = Kernels();
  const bool bf16 = p.dtype == DType::kBf16;
  const int64_t row_bytes = p.width * SizeOf(p.dtype);
  pool.ParallelFor(p.n, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const char* gate = static_cast<const char*>(p.gate_up) + i * 2 * row_bytes;
      kernels.silu_mul(gate, gate + row_bytes, p.width, static_cast<char*>(p.out) + i * row_bytes,
                       bf16);
    }
  });
}

}  // namespace spin::cpu
