// Missing pages cross from the host pool to their slots. On this backend the link is a memcpy.
#include <cstring>

#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {

void GatherPages(const GatherPagesParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      SPIN_CHECK_LE(p.copy_len[i], p.max_list);
      for (int32_t k = 0; k < p.copy_len[i]; ++k) {
        const int64_t entry = i * p.max_list + k;
        std::memcpy(PageAt(t.slots, g, p.copy_dst[entry]),
                    PageAt(t.host_pages, g, p.copy_src[entry]),
                    static_cast<size_t>(g.page_bytes()));
      }
    }
  });
}

}  // namespace spin::cpu
