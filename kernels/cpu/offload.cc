// The end of a layer's prefill: pages leave staging for where the rows' placement says.
//
// Only valid tokens are copied: what lies behind the last token of a staging page is garbage (or
// poison, in tests) and stays there. Tokens in an order of Index's go one by one.
#include <algorithm>
#include <cstring>

#include "common/math.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

constexpr int64_t kPageGrain = 16;

void CopyTokens(char* dst, const char* src, const KvGeometry& g, int32_t tokens) {
  if (tokens == g.page_tokens) {
    std::memcpy(dst, src, static_cast<size_t>(g.page_bytes()));
    return;
  }
  const int64_t plane = g.plane_elements() * SizeOf(g.dtype);
  const auto bytes = static_cast<size_t>(int64_t{tokens} * g.head_dim * SizeOf(g.dtype));
  std::memcpy(dst, src, bytes);
  std::memcpy(dst + plane, src + plane, bytes);
}

// Where the tokens of one page come from, one by one: the order of one head.
struct TokenOrder {
  const int32_t* place = nullptr;  // [P] staging place of each token of the page
  const char* staging = nullptr;   // the head's first page
};

void CopyOrdered(char* dst, const TokenOrder& from, const KvGeometry& g, int32_t tokens) {
  const int64_t size = SizeOf(g.dtype);
  const auto bytes = static_cast<size_t>(g.head_dim * size);
  for (int32_t k = 0; k < tokens; ++k) {
    const int32_t place = from.place[k];
    const char* src = from.staging + place / g.page_tokens * g.page_bytes();
    const int32_t token = place % g.page_tokens;
    std::memcpy(dst + g.KeyOffset(k) * size, src + g.KeyOffset(token) * size, bytes);
    std::memcpy(dst + g.ValueOffset(k) * size, src + g.ValueOffset(token) * size, bytes);
  }
}

// Makes the last pages of a Tiered stream resident in its local slots 0.., and nothing else.
void BindLastPages(const KvTables& t, const StreamView& stream, int32_t pages) {
  for (int32_t j = 0; j < stream.num_slots(); ++j) {
    const int64_t slot = stream.Slot(j);
    if (t.slot_owner[slot] != kAbsent) t.meta[stream.Meta(t.slot_owner[slot])] = kAbsent;
  }
  const int32_t resident = std::min(pages, stream.num_slots());
  for (int32_t p = 0; p < pages - resident; ++p) t.meta[stream.Meta(p)] = kAbsent;
  for (int32_t j = 0; j < stream.num_slots(); ++j) {
    const int64_t slot = stream.Slot(j);
    t.slot_owner[slot] = j < resident ? pages - resident + j : kAbsent;
    t.slot_age[slot] = 0;
    if (j < resident) t.meta[stream.Meta(pages - resident + j)] = j;
  }
}

}  // namespace

void Offload(const OffloadParams& p, ThreadPool& pool) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice& slice = p.slices[s];
    const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
    const int32_t pages = CeilDiv(tokens, g.page_tokens);
    SPIN_CHECK(slice.page_begin >= 0 && slice.page_begin + pages <= p.staging.num_pages);
    pool.ParallelFor(g.num_kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (auto head = static_cast<int32_t>(begin); head < end; ++head) {
        const StreamView stream(t, slice.row, p.layer, head);
        if (stream.tiered()) BindLastPages(t, stream, pages);
      }
    });
    pool.ParallelFor(int64_t{g.num_kv_heads} * pages, kPageGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto head = static_cast<int32_t>(i / pages);
        const auto page = static_cast<int32_t>(i % pages);
        const StreamView stream(t, slice.row, p.layer, head);
        const int64_t first = int64_t{head} * p.staging.num_pages;
        const int64_t at = slice.page_begin + page;
        const int32_t valid = std::min(g.page_tokens, tokens - page * g.page_tokens);
        const auto copy = [&](void* pool_pages, int64_t index) {
          char* dst = PageAt(pool_pages, g, index);
          if (p.order == nullptr) {
            return CopyTokens(dst, PageAt(p.staging.pages, g, first + at), g, valid);
          }
          CopyOrdered(dst,
                      {.place = p.order + (first + at) * g.page_tokens,
                       .staging = PageAt(p.staging.pages, g, first)},
                      g, valid);
        };
        if (stream.tiered()) {
          copy(t.host_pages, stream.HostPage(page));
          if (t.meta[stream.Meta(page)] == kAbsent) continue;
        }
        copy(t.slots, stream.SlotOfPage(page));
      }
    });
  }
}

}  // namespace spin::cpu
