// One stream's way through the two-level tables: directory entry, then arithmetic.
//
// A view is made where it is used and holds pointers only. Indices are checked: a page that no
// extent backs is a bug of whoever planned the memory, and must not become a write to some other
// sequence's page.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "kernels/params.h"

namespace spin::cpu {

// Page `index` of a pool of pages.
inline char* PageAt(void* pool, const KvGeometry& g, int64_t index) {
  return static_cast<char*>(pool) + index * g.page_bytes();
}

class StreamView {
 public:
  StreamView(const KvTables& tables, int32_t row, int32_t layer, int32_t head)
      : tables_(tables), head_(head), dir_(tables.geometry.DirIndex(row, layer, 0)) {
    SPIN_CHECK(row >= 0 && row < tables.geometry.max_rows);
    placement_ = static_cast<Placement>(tables.placement[row]);
    SPIN_CHECK(placement_ != Placement::kNone);
    if (placement_ == Placement::kTiered) {
      num_slots_ = tables.num_slots[int64_t{row} * tables.geometry.num_layers + layer];
    }
  }

  bool tiered() const { return placement_ == Placement::kTiered; }
  int32_t num_slots() const { return num_slots_; }  // Tiered only

  // Index in its pool of: local slot j; page or meta entry p; the summary of partition i.
  int64_t Slot(int32_t j) const { return PageIn(tables_.slot_dir, j); }
  int64_t HostPage(int32_t p) const { return PageIn(tables_.host_dir, p); }
  int64_t Meta(int32_t p) const { return PageIn(tables_.meta_dir, p); }
  int64_t Summary(int32_t i) const {
    const KvGeometry& g = tables_.geometry;
    const int32_t extent = ExtentOf(tables_.summary_dir, i, g.extent_partitions());
    return g.SummaryIndex(extent, head_, i % g.extent_partitions());
  }

  // The slot that holds page p. REQUIRES: it is resident.
  int64_t SlotOfPage(int32_t p) const {
    if (!tiered()) return Slot(p);
    const int32_t local = tables_.meta[Meta(p)];
    SPIN_CHECK(local >= 0 && local < num_slots_);
    return Slot(local);
  }

  // Page p where it can be read: its slot if it is resident, else the host's copy.
  const char* PageBytes(int32_t p) const {
    const bool resident = !tiered() || tables_.meta[Meta(p)] >= 0;
    return resident ? PageAt(tables_.slots, tables_.geometry, SlotOfPage(p))
                    : PageAt(tables_.host_pages, tables_.geometry, HostPage(p));
  }

 private:
  // The extent of entry i of a directory, `per_extent` of which are in one.
  int32_t ExtentOf(const int32_t* directory, int32_t i, int32_t per_extent) const {
    const int32_t entry = i / per_extent;
    SPIN_CHECK(i >= 0 && entry < tables_.geometry.max_extents);
    const int32_t extent = directory[dir_ + entry];
    SPIN_CHECK_GE(extent, 0);
    return extent;
  }
  int64_t PageIn(const int32_t* directory, int32_t i) const {
    const KvGeometry& g = tables_.geometry;
    return g.PageIndex(ExtentOf(directory, i, g.extent_pages()), head_, i % g.extent_pages());
  }

  const KvTables& tables_;
  int32_t head_;
  int64_t dir_;  // first directory entry of (row, layer)
  Placement placement_ = Placement::kNone;
  int32_t num_slots_ = 0;
};

// Entries of a step that are in use.
inline int32_t NumRows(const DecodeRows& decode) {
  SPIN_CHECK(*decode.num_rows >= 0 && *decode.num_rows <= decode.max_batch);
  return *decode.num_rows;
}

// Key of KV head `head` in a row of fused q, k, v; its value lies num_kv_heads * head_dim elements
// further.
inline const char* KeyOf(const void* qkv, const KvGeometry& g, int32_t place, int32_t head) {
  const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
  const int64_t element = place * width + int64_t{g.num_q_heads + head} * g.head_dim;
  return static_cast<const char*>(qkv) + element * SizeOf(g.dtype);
}

}  // namespace spin::cpu
