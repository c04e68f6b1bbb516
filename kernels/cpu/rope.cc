#include "common/check.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/isa.h"

namespace spin::cpu {

void Rope(const RopeParams& p, ThreadPool& pool) {
  SPIN_CHECK(p.dtype == DType::kF32 || p.dtype == DType::kBf16);
  SPIN_CHECK(p.head_dim == 64 || p.head_dim == 128);
  const KernelTable& kernels = Kernels();
  const bool bf16 = p.dtype == DType::kBf16;
  const bool decode = p.positions == nullptr;
  const int64_t n = decode ? *p.decode.num_rows : p.n;
  SPIN_CHECK_LE(n, p.n);
  const int64_t head_bytes = p.head_dim * SizeOf(p.dtype);
  const int64_t row_bytes = (p.num_q_heads + 2 * p.num_kv_heads) * head_bytes;
  pool.ParallelFor(n, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t position = decode ? p.decode.position[p.decode.rows[i]] : p.positions[i];
      const float* table = p.table + position * p.head_dim;
      char* q = static_cast<char*>(p.qkv) + i * row_bytes;
      kernels.rope(q, p.num_q_heads, p.head_dim, p.q_norm, p.eps, table, bf16);
      kernels.rope(q + p.num_q_heads * head_bytes, p.num_kv_heads, p.head_dim, p.k_norm, p.eps,
                   table, bf16);
    }
  });
}

}  // namespace spin::cpu
