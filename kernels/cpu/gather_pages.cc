// Missing pages cross from the host pool to their slots. On this backend the link is a memcpy.
#include <cstring>

#include "kernels/cpu/families.h"
#include "kernels/cpu/key_record.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

// Bytes of a page that stream `i` fetches to `slot`, at the page's end: values alone, where keys are rebuilt.
int64_t BytesOf(const GatherPagesParams& p, int64_t i, int32_t slot) {
  const KvGeometry& g = p.tables.geometry;
  if (p.whole_last == 0) return g.page_bytes();
  const int32_t row = p.decode.rows[i / g.num_kv_heads];
  const bool rebuilt =
      RebuildsKeys(p.tables, row, p.layer, static_cast<int32_t>(i % g.num_kv_heads),
                   p.tables.slot_owner[slot], p.decode.position[row], p.list_len[i], p.whole_last);
  return rebuilt ? g.page_bytes() / 2 : g.page_bytes();
}

}  // namespace

void GatherPages(const GatherPagesParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  SPIN_CHECK(p.whole_last >= 0);
  SPIN_CHECK(p.whole_last == 0 || (g.key_rank > 0 && p.list_len != nullptr));
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      SPIN_CHECK_LE(p.copy_len[i], p.max_list);
      for (int32_t k = 0; k < p.copy_len[i]; ++k) {
        const int64_t entry = i * p.max_list + k;
        const int64_t bytes = BytesOf(p, i, p.copy_dst[entry]);
        const int64_t skipped = g.page_bytes() - bytes;
        std::memcpy(PageAt(t.slots, g, p.copy_dst[entry]) + skipped,
                    PageAt(t.host_pages, g, p.copy_src[entry]) + skipped,
                    static_cast<size_t>(bytes));
      }
    }
  });
}

}  // namespace spin::cpu
