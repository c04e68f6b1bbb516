// What one CTA of lookup.cu looks at: a stream's inputs, outputs and directories, and the warps' shares of its entries.
// Included by lookup.cu alone.
#pragma once

#include "common/math.h"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTiles = 4;  // groups of 32 that a warp holds in registers
constexpr int kHeld = kTiles * kWarp;

__device__ __forceinline__ int Lane() {
  return static_cast<int>(threadIdx.x % kWarp);
}
__device__ __forceinline__ int Warp() {
  return static_cast<int>(threadIdx.x / kWarp);
}
// Lanes below this one among `lanes`.
__device__ __forceinline__ int32_t CountBelow(unsigned lanes) {
  return __popc(lanes & ((1u << Lane()) - 1));
}

__device__ __forceinline__ int Log2(int32_t power_of_two) {
  return __ffs(power_of_two) - 1;
}

// One pool's directory of a stream. An extent has a power of two of pages.
class Directory {
 public:
  __device__ Directory(const int32_t* directory, const KvGeometry& g, int32_t row, int32_t layer,
                       int32_t head)
      : extents_(directory + g.DirIndex(row, layer, 0)),
        shift_(Log2(g.extent_pages())),
        heads_(g.num_kv_heads),
        head_(head) {}

  // In two steps, so that the reads of several entries overlap: the extent that backs entry i, then i's index in the
  // pool.
  __device__ int32_t Extent(int32_t i) const { return extents_[i >> shift_]; }
  __device__ int64_t Index(int32_t extent, int32_t i) const {
    SPIN_DEVICE_CHECK(extent >= 0);
    return ((int64_t{extent} * heads_ + head_) << shift_) + (i & ((1 << shift_) - 1));
  }
  __device__ int64_t operator[](int32_t i) const { return Index(Extent(i), i); }

 private:
  const int32_t* extents_;
  int shift_;
  int32_t heads_, head_;
};

// A stream's inputs and outputs.
struct LookupStream {
  __device__ LookupStream(const LookupParams& p, int32_t place, int32_t row, int32_t head)
      : tables(p.tables),
        slots(tables.slot_dir, tables.geometry, row, p.layer, head),
        pages(tables.host_dir, tables.geometry, row, p.layer, head),
        metas(tables.meta_dir, tables.geometry, row, p.layer, head),
        eviction(p.eviction) {
    const int64_t i = int64_t{place} * tables.geometry.num_kv_heads + head;
    ids = p.ids == nullptr ? nullptr : p.ids + i * p.max_selected;
    // In flight together: nothing is looked at before the last has gone. num_slots means nothing in a Resident row.
    const int32_t num_ids = ids == nullptr ? 0 : p.count[i];
    const int32_t position = p.decode.position[row];
    const auto placement = static_cast<Placement>(tables.placement[row]);
    num_slots = tables.num_slots[int64_t{row} * tables.geometry.num_layers + p.layer];
    SPIN_DEVICE_CHECK(placement != Placement::kNone);
    tiered = placement == Placement::kTiered;
    tail = position / tables.geometry.page_tokens;
    fresh_tail = position % tables.geometry.page_tokens == 0;
    count = ids == nullptr ? tail + 1 : num_ids;
    SPIN_DEVICE_CHECK(count >= 1 && count <= p.max_list);
    list = p.page_list + i * p.max_list;
    copy_src = p.copy_src + i * p.max_list;
    copy_dst = p.copy_dst + i * p.max_list;
    copy_len = p.copy_len + i;
    list_len = p.list_len + i;
    ready_tokens = p.ready_tokens == nullptr ? nullptr : p.ready_tokens + i;
    masks = p.page_mask == nullptr ? nullptr : p.page_mask + i * p.max_selected;
    list_mask = p.list_mask + (masks == nullptr ? 0 : i * p.max_list);
    page_tokens = tables.geometry.page_tokens;
    tail_tokens = position % page_tokens + 1;
  }

  __device__ int32_t Id(int32_t i) const { return ids == nullptr ? i : ids[i]; }
  // Entry `at` of the list is the i-th id, in this slot.
  __device__ __forceinline__ void SetEntry(int32_t at, int32_t i, int32_t slot) const {
    list[at] = slot;
    if (masks != nullptr) list_mask[at] = masks[i];
  }

  // Of the first `pages` of the list, which are not copied; the tail's may be one of them.
  __device__ void ReportReady(int32_t pages, bool with_tail) const {
    if (ready_tokens == nullptr) return;
    *ready_tokens = pages * page_tokens - (with_tail ? page_tokens - tail_tokens : 0);
  }

  const KvTables& tables;
  Directory slots, pages, metas;
  Eviction eviction;
  bool tiered;
  int32_t num_slots;  // local ones, of a Tiered row
  int32_t tail;
  bool fresh_tail;
  const int32_t* ids;  // null: 0, 1, 2...
  int32_t count;
  int32_t* list;
  const uint8_t* masks;  // of the ids; null: pages have none
  uint8_t* list_mask;
  int64_t* copy_src;
  int32_t* copy_dst;
  int32_t* copy_len;
  int32_t* list_len;
  int32_t* ready_tokens;  // null: the list stays in ids' order
  int32_t page_tokens, tail_tokens;
};

// A warp's run of `count` entries: whole tiles, as even as they come.
struct WarpRun {
  __device__ explicit WarpRun(int32_t count) {
    const int32_t length = RoundUp(CeilDiv(count, kWarps), kWarp);
    begin = min(Warp() * length, count);
    end = min(begin + length, count);
  }
  // Entry of this lane in tile k of those from `base` on; kAbsent past the end.
  __device__ int32_t Entry(int32_t base, int k) const {
    const int32_t i = base + k * kWarp + Lane();
    return i < end ? i : kAbsent;
  }
  __device__ bool fits() const { return end - begin <= kHeld; }  // into registers

  int32_t begin, end;
};

}  // namespace
}  // namespace spin::cuda
