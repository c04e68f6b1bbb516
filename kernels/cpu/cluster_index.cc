// RetroInfer's Index: the segments of a prefilled layer, and the extent that a decode step finds behind it, become
// clusters.
#include <algorithm>
#include <cstring>

#include "common/math.h"
#include "kernels/cpu/cluster_means.h"
#include "kernels/cpu/cluster_scratch.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMaxHeadDim = 128;

void CheckGeometry(const KvGeometry& g) {
  SPIN_CHECK(g.head_dim % kLanes == 0 && g.head_dim <= kMaxHeadDim);
  SPIN_CHECK_EQ(g.page_tokens, kClusterPageTokens);
  SPIN_CHECK_EQ(g.partition_tokens, kClusterTokens);
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim + kClusterTailElements);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
}

// The sink is in the first segment.
int32_t FixedTokens(int32_t first_token) {
  return first_token == 0 ? kClusterPageTokens : 0;
}

void WriteRecords(const KvTables& t, const StreamView& stream, const ClusterSegment& segment,
                  const SegmentOrder& order, int32_t first_token) {
  const KvGeometry& g = t.geometry;
  for (int32_t c = 0; c < segment.num_clusters(); ++c) {
    const int64_t index = stream.Summary(first_token / kClusterTokens + c);
    WriteClusterRecord(g, segment, order, c, first_token,
                       static_cast<char*>(t.summaries) + index * g.summary_bytes());
  }
}

// Tokens of a slice's sequence that are clustered, in whole segments but for the last.
int32_t IndexedTokensOf(const PrefillSlice& slice) {
  return static_cast<int32_t>(IndexedTokens(int64_t{slice.prefix_tokens} + slice.num_tokens));
}
int32_t SegmentsOf(const PrefillSlice& slice) {
  return CeilDiv(IndexedTokensOf(slice), kClusterSegmentTokens);
}

void IndexSegment(const ClusterIndexPrefillParams& p, const PrefillSlice& slice, int32_t head,
                  int32_t number, void* scratch) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t first = number * kClusterSegmentTokens;
  const int64_t page =
      int64_t{head} * p.staging.num_pages + slice.page_begin + first / g.page_tokens;
  const ClusterSegment segment = {
      .pages = PageAt(p.staging.pages, g, page),
      .num_tokens = std::min(kClusterSegmentTokens, IndexedTokensOf(slice) - first),
      .num_fixed = FixedTokens(first)};
  const SegmentOrder order = FindClusters(g, segment, scratch);
  WriteRecords(p.tables, StreamView(p.tables, slice.row, p.layer, head), segment, order, first);
  const auto place = static_cast<int32_t>(page * g.page_tokens);  // of the segment in `order`
  const int32_t in_head = (slice.page_begin * g.page_tokens) + first;
  for (int32_t i = 0; i < segment.num_tokens; ++i) p.order[place + i] = in_head + order.token[i];
}

// The pages of an extent in one piece.
void ReadExtent(const KvGeometry& g, const StreamView& stream, int32_t first_page, char* to) {
  for (int32_t i = 0; i < g.extent_pages(); ++i) {
    std::memcpy(to + i * g.page_bytes(), stream.PageBytes(first_page + i),
                static_cast<size_t>(g.page_bytes()));
  }
}

// Page `page` of the extent in the new order.
void WritePage(const KvGeometry& g, const char* extent, const SegmentOrder& order, int32_t page,
               char* to) {
  const int64_t bytes = g.head_dim * SizeOf(g.dtype);
  for (int32_t k = 0; k < g.page_tokens; ++k) {
    const int32_t token = order.token[page * g.page_tokens + k];
    const char* from = extent + token / g.page_tokens * g.page_bytes();
    const int64_t key = g.KeyOffset(token % g.page_tokens) * SizeOf(g.dtype);
    const int64_t value = g.ValueOffset(token % g.page_tokens) * SizeOf(g.dtype);
    std::memcpy(to + g.KeyOffset(k) * SizeOf(g.dtype), from + key, static_cast<size_t>(bytes));
    std::memcpy(to + g.ValueOffset(k) * SizeOf(g.dtype), from + value, static_cast<size_t>(bytes));
  }
}

void IndexExtent(const ClusterIndexDecodeParams& p, int32_t row, int32_t head, int32_t first_token,
                 char* scratch) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const StreamView stream(t, row, p.layer, head);
  const int32_t first_page = first_token / g.page_tokens;
  char* extent = scratch;
  ReadExtent(g, stream, first_page, extent);
  const ClusterSegment segment = {
      .pages = extent, .num_tokens = kExtentTokens, .num_fixed = FixedTokens(first_token)};
  const SegmentOrder order = FindClusters(g, segment, scratch + g.extent_pages() * g.page_bytes());
  WriteRecords(t, stream, segment, order, first_token);
  for (int32_t i = 0; i < g.extent_pages(); ++i) {
    const int32_t page = first_page + i;
    if (stream.tiered()) {
      WritePage(g, extent, order, i, PageAt(t.host_pages, g, stream.HostPage(page)));
      if (t.meta[stream.Meta(page)] == kAbsent) continue;
    }
    WritePage(g, extent, order, i, PageAt(t.slots, g, stream.SlotOfPage(page)));
  }
}

// Calls body(i, scratch of its own while it runs) for i < n, as many at a time as there are threads: a decode step that
// waits for the pool waits for one of them.
template <typename Body>
void ForEachWithScratch(ThreadPool& pool, int64_t n, void* scratch, int64_t bytes, Body body) {
  const int64_t threads = pool.num_threads();
  for (int64_t first = 0; first < n; first += threads) {
    pool.ParallelFor(std::min(threads, n - first), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        body(first + i, static_cast<char*>(scratch) + i * bytes);
      }
    });
  }
}

}  // namespace

int64_t ClusterPrefillThreadBytes(const KvGeometry& g, int32_t staging_pages) {
  const int64_t tokens = int64_t{staging_pages} * g.page_tokens / kExtentTokens * kExtentTokens;
  return ClusterScratchBytes(
      g, static_cast<int32_t>(std::min<int64_t>(tokens, kClusterSegmentTokens)));
}

int64_t ClusterDecodeThreadBytes(const KvGeometry& g) {
  return g.extent_pages() * g.page_bytes() + ClusterScratchBytes(g, kExtentTokens);
}

void ClusterIndexPrefill(const ClusterIndexPrefillParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  CheckGeometry(g);
  const int64_t bytes = ClusterPrefillThreadBytes(g, p.staging.num_pages);
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice& slice = p.slices[s];
    const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
    SPIN_CHECK(slice.page_begin >= 0 &&
               slice.page_begin + CeilDiv(tokens, g.page_tokens) <= p.staging.num_pages);
    for (int64_t head = 0; head < g.num_kv_heads; ++head) {
      const int64_t base = head * p.staging.num_pages * g.page_tokens;
      for (int32_t t = IndexedTokensOf(slice); t < tokens; ++t) {
        const int32_t place = slice.page_begin * g.page_tokens + t;
        p.order[base + place] = place;
      }
    }
    const int32_t segments = SegmentsOf(slice);
    ForEachWithScratch(pool, int64_t{g.num_kv_heads} * segments, p.scratch, bytes,
                       [&](int64_t i, char* scratch) {
                         IndexSegment(p, slice, static_cast<int32_t>(i / segments),
                                      static_cast<int32_t>(i % segments), scratch);
                       });
  }
}

void ClusterIndexDecode(const ClusterIndexDecodeParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  CheckGeometry(g);
  for (int32_t place = 0; place < NumRows(p.decode); ++place) {
    const int32_t row = p.decode.rows[place];
    const int64_t position = p.decode.position[row];
    const auto first = static_cast<int32_t>(IndexedTokens(position));
    if (IndexedTokens(position + 1) == first) continue;
    ForEachWithScratch(pool, g.num_kv_heads, p.scratch, ClusterDecodeThreadBytes(g),
                       [&](int64_t head, char* scratch) {
                         IndexExtent(p, row, static_cast<int32_t>(head), first, scratch);
                       });
  }
}

}  // namespace spin::cpu
