#include <algorithm>
#include <bit>
#include <cmath>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/isa.h"

namespace spin::cpu {
namespace {

struct Shape {
  explicit Shape(const PrefillAttentionParams& p)
      : bf16(p.geometry.dtype == DType::kBf16),
        size(SizeOf(p.geometry.dtype)),
        head_elements(p.geometry.head_dim),
        row_elements((int64_t{p.geometry.num_q_heads} + 2 * p.geometry.num_kv_heads) *
                     head_elements),
        out_elements(int64_t{p.geometry.num_q_heads} * head_elements),
        page_shift(std::countr_zero(static_cast<uint32_t>(p.geometry.page_tokens))),
        scale(1.0f / std::sqrt(static_cast<float>(p.geometry.head_dim))) {}

  bool bf16;
  int64_t size;
  int64_t head_elements;
  int64_t row_elements;
  int64_t out_elements;
  int32_t page_shift;
  float scale;
};

// Token i of KV head h, in the order of decode: bit-equal to it.
void AttendToken(const PrefillAttentionParams& p, const Shape& s, const KernelTable& kernels,
                 int64_t i, int32_t h) {
  const int32_t first_head = h * p.geometry.group();
  SPIN_CHECK_EQ(p.kv_begin[i] % p.geometry.page_tokens, 0);
  AttendTask task;
  task.q = static_cast<const char*>(p.qkv) +
           (i * s.row_elements + first_head * s.head_elements) * s.size;
  task.out =
      static_cast<char*>(p.out) + (i * s.out_elements + first_head * s.head_elements) * s.size;
  task.num_heads = p.geometry.group();
  task.head_dim = p.geometry.head_dim;
  task.pages = p.staging.pages;
  task.first_page = int64_t{h} * p.staging.num_pages + (p.kv_begin[i] >> s.page_shift);
  task.page_shift = s.page_shift;
  task.num_tokens = p.kv_index[i] - p.kv_begin[i] + 1;
  task.scale = s.scale;
  kernels.attend(task, s.bf16);
}

// Tokens [begin, end) of KV head h, by tiles of one sequence each.
void AttendTokens(const PrefillAttentionParams& p, const Shape& s, const KernelTable& kernels,
                  int64_t begin, int64_t end, int32_t h) {
  const int32_t first_head = h * p.geometry.group();
  int32_t last_key[kPrefillTileRows];
  PrefillTile tile;
  tile.q_stride = s.row_elements;
  tile.out_stride = s.out_elements;
  tile.group = p.geometry.group();
  tile.head_dim = p.geometry.head_dim;
  tile.page_shift = s.page_shift;
  tile.last_key = last_key;
  tile.scale = s.scale;
  while (begin < end) {
    const int32_t kv_begin = p.kv_begin[begin];
    SPIN_CHECK_EQ(kv_begin % p.geometry.page_tokens, 0);
    int32_t count = 0;
    for (; begin + count < end && p.kv_begin[begin + count] == kv_begin; ++count) {
      last_key[count] = p.kv_index[begin + count] - kv_begin;
    }
    const int64_t page = int64_t{h} * p.staging.num_pages + (kv_begin >> s.page_shift);
    tile.pages = static_cast<const uint16_t*>(p.staging.pages) + page * p.geometry.page_elements();
    tile.q =
        static_cast<const uint16_t*>(p.qkv) + begin * s.row_elements + first_head * s.head_elements;
    tile.out =
        static_cast<uint16_t*>(p.out) + begin * s.out_elements + first_head * s.head_elements;
    tile.num_tokens = count;
    kernels.prefill_bf16(tile);
    begin += count;
  }
}

// Place j of n in the order 0, n-1, 1, n-2, ..: later tokens see more keys, and an even split of
// this order is even in work too.
int64_t Folded(int64_t j, int64_t n) {
  return j % 2 == 0 ? j / 2 : n - 1 - j / 2;
}

}  // namespace

void PrefillAttention(const PrefillAttentionParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.geometry;
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK(g.page_tokens >= 8 && std::has_single_bit(static_cast<uint32_t>(g.page_tokens)));
  const Shape shape(p);
  const KernelTable& kernels = Kernels();
  const int64_t heads = g.num_kv_heads;
  if (shape.bf16 && kernels.prefill_bf16 != nullptr && g.group() <= kPrefillTileRows) {
    const int64_t tile_tokens = kPrefillTileRows / g.group();
    const int64_t tiles = CeilDiv(int64_t{p.n}, tile_tokens);
    pool.ParallelFor(tiles * heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        const int64_t tile = Folded(j / heads, tiles);
        AttendTokens(p, shape, kernels, tile * tile_tokens,
                     std::min<int64_t>(p.n, (tile + 1) * tile_tokens),
                     static_cast<int32_t>(j % heads));
      }
    });
    return;
  }
  pool.ParallelFor(p.n * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      AttendToken(p, shape, kernels, Folded(j / heads, p.n), static_cast<int32_t>(j % heads));
    }
  });
}

}  // namespace spin::cpu
