#include <cstring>

#include "common/check.h"
#include "kernels/cpu/families.h"

namespace spin::cpu {

void StoreKv(const StoreKvParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.geometry;
  const int64_t size = SizeOf(g.dtype);
  const int64_t head_bytes = g.head_dim * size;
  const int64_t row_bytes = (g.num_q_heads + 2 * g.num_kv_heads) * head_bytes;
  pool.ParallelFor(p.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t page = p.kv_index[i] / g.page_tokens;
      const int32_t token = p.kv_index[i] % g.page_tokens;
      SPIN_CHECK_LT(page, p.staging.num_pages);
      const char* k = static_cast<const char*>(p.qkv) + i * row_bytes + g.num_q_heads * head_bytes;
      const char* v = k + g.num_kv_heads * head_bytes;
      for (int32_t h = 0; h < g.num_kv_heads; ++h) {
        char* to = static_cast<char*>(p.staging.pages) +
                   (int64_t{h} * p.staging.num_pages + page) * g.page_bytes();
        std::memcpy(to + g.KeyOffset(token) * size, k + h * head_bytes, size_t(head_bytes));
        std::memcpy(to + g.ValueOffset(token) * size, v + h * head_bytes, size_t(head_bytes));
      }
    }
  });
}

}  // namespace spin::cpu
