#include <algorithm>
#include <bit>
#include <cmath>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/isa.h"

namespace spin::cpu {
namespace {

// Query heads [begin, end) of place b, all of KV head h.
void AttendPlace(const PagedAttentionParams& p, const KernelTable& kernels, int64_t b, int32_t h,
                 int32_t begin, int32_t end) {
  const KvGeometry& g = p.tables.geometry;
  const int64_t stream = b * g.num_kv_heads + h;
  const int32_t pages = p.list_len[stream];
  SPIN_CHECK(0 < pages && pages <= p.max_list);
  const int32_t* list = p.page_list + stream * p.max_list;
  const int32_t position = p.decode.position[p.decode.rows[b]];
  const int64_t size = SizeOf(g.dtype);
  const int64_t row = int64_t{g.num_q_heads} + 2 * g.num_kv_heads;
  AttendTask task;
  task.q = static_cast<const char*>(p.qkv) + (b * row + begin) * g.head_dim * size;
  task.out = static_cast<char*>(p.out) + (b * g.num_q_heads + begin) * g.head_dim * size;
  task.num_heads = end - begin;
  task.head_dim = g.head_dim;
  task.pages = p.tables.slots;
  task.page_list = list;
  task.page_shift = std::countr_zero(static_cast<uint32_t>(g.page_tokens));
  task.num_tokens = (pages - 1) * g.page_tokens + position % g.page_tokens + 1;
  task.scale = 1.0f / std::sqrt(static_cast<float>(g.head_dim));
  if (p.page_mask != nullptr) task.page_mask = p.page_mask + stream * p.max_list;
  if (p.estimate != nullptr) {
    task.estimate = p.estimate + (b * g.num_q_heads + begin) * (g.head_dim + 2);
  }
  if (p.part != ListPart::kAll) {
    const int32_t ready = p.ready_tokens[stream];
    SPIN_CHECK(0 <= ready && ready <= task.num_tokens);
    const bool all = ready == task.num_tokens;
    float* partial = p.partial + (b * g.num_q_heads + begin) * (g.head_dim + 2);
    if (p.part == ListPart::kReady) {
      task.num_tokens = ready;
      task.to = all ? nullptr : partial;
    } else {
      if (all) return;
      const int32_t ready_pages = CeilDiv(ready, g.page_tokens);
      task.page_list += ready_pages;
      if (task.page_mask != nullptr) task.page_mask += ready_pages;
      task.num_tokens -= ready;
      task.from = partial;
    }
  }
  kernels.attend(task, g.dtype == DType::kBf16);
}

}  // namespace

void PagedAttention(const PagedAttentionParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK(g.page_tokens >= 8 && std::has_single_bit(static_cast<uint32_t>(g.page_tokens)));
  SPIN_CHECK(p.page_mask == nullptr || g.page_tokens == 8);
  const int64_t num_rows = *p.decode.num_rows;
  SPIN_CHECK_LE(num_rows, p.decode.max_batch);
  const KernelTable& kernels = Kernels();
  const int32_t group = g.group();
  // Whole groups where there are enough of them, so that a page is read once; else single heads, so
  // that 3 groups do not make one of 2 threads wait.
  const int64_t streams = num_rows * g.num_kv_heads;
  const int64_t threads = pool.num_threads();
  const int64_t grain = streams % threads == 0 || streams >= 8 * threads ? group : 1;
  pool.ParallelFor(streams * group, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t stream = begin / group;
      const int32_t first = static_cast<int32_t>(begin % group);
      const int32_t last = static_cast<int32_t>(std::min<int64_t>(group, first + end - begin));
      const int32_t h = static_cast<int32_t>(stream % g.num_kv_heads);
      AttendPlace(p, kernels, stream / g.num_kv_heads, h, h * group + first, h * group + last);
      begin += last - first;
    }
  });
}

}  // namespace spin::cpu
