#include "common/check.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/isa.h"

namespace spin::cpu {

void RmsNorm(const RmsNormParams& p, ThreadPool& pool) {
  SPIN_CHECK(p.out_dtype == DType::kF32 || p.out_dtype == DType::kBf16);
  const KernelTable& kernels = Kernels();
  const bool bf16 = p.out_dtype == DType::kBf16;
  pool.ParallelFor(p.n, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* out = static_cast<char*>(p.out) + i * p.hidden * SizeOf(p.out_dtype);
      kernels.rms_norm(p.in + i * p.hidden, p.weight, p.eps, p.hidden, out, bf16);
    }
  });
}

}  // namespace spin::cpu
