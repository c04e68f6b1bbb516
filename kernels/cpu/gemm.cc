#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/weight_layout.h"

namespace spin::cpu {

void Gemm(const GemmParams& p, ThreadPool& pool) {
  SPIN_CHECK(p.w.dtype == DType::kF32 || p.w.dtype == DType::kBf16);
  SPIN_CHECK(p.c_dtype == DType::kF32 || p.c_dtype == DType::kBf16);
  SPIN_CHECK(!p.accumulate || p.c_dtype == DType::kF32);
  SPIN_CHECK_GE(p.lda, p.w.k);
  SPIN_CHECK_GE(p.ldc, p.w.n);
  if (p.m <= 0) return;
  // Panels are split evenly; a thread takes at least some 16 KiB of weights.
  const int64_t panel_bytes = int64_t{kPanelRows} * p.w.k * SizeOf(p.w.dtype);
  const int64_t grain = std::max<int64_t>(1, 16384 / (panel_bytes * p.m));
  const KernelTable& kernels = Kernels();
  pool.ParallelFor(CeilDiv(p.w.n, kPanelRows), grain,
                   [&](int64_t begin, int64_t end) { kernels.gemm(p, begin, end); });
}

}  // namespace spin::cpu
