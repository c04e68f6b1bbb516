// The new token's key and value: into the slot of its page, and through to the host page of a
// Tiered row, so that no evicted page is ever dirty.
#include <cstring>

#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {

void AppendKv(const AppendKvParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int64_t element = SizeOf(g.dtype);
  const auto bytes = static_cast<size_t>(g.head_dim * element);
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 32, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto place = static_cast<int32_t>(i / g.num_kv_heads);
      const auto head = static_cast<int32_t>(i % g.num_kv_heads);
      const int32_t row = p.decode.rows[place];
      const int32_t page = p.decode.position[row] / g.page_tokens;
      const int32_t token = p.decode.position[row] % g.page_tokens;
      const char* key = KeyOf(p.qkv, g, place, head);
      const char* value = key + int64_t{g.num_kv_heads} * g.head_dim * element;
      const auto write = [&](char* to) {
        std::memcpy(to + g.KeyOffset(token) * element, key, bytes);
        std::memcpy(to + g.ValueOffset(token) * element, value, bytes);
      };
      const StreamView stream(t, row, p.layer, head);
      write(PageAt(t.slots, g, stream.SlotOfPage(page)));
      if (stream.tiered()) write(PageAt(t.host_pages, g, stream.HostPage(page)));
    }
  });
}

}  // namespace spin::cpu
