// One stream's way through the two-level tables on the device: directory entry, then arithmetic. The twin of
// kernels/cpu/stream_view.h.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/params.h"

namespace spin::cuda {

// Page `index` of a pool of pages.
__device__ __forceinline__ char* PageAt(void* pool, const KvGeometry& g, int64_t index) {
  return static_cast<char*>(pool) + index * g.page_bytes();
}

class StreamView {
 public:
  __device__ StreamView(const KvTables& tables, int32_t row, int32_t layer, int32_t head)
      : tables_(tables), head_(head), dir_(tables.geometry.DirIndex(row, layer, 0)) {
    placement_ = static_cast<Placement>(tables.placement[row]);
    SPIN_DEVICE_CHECK(placement_ != Placement::kNone);
    if (placement_ == Placement::kTiered) {
      num_slots_ = tables.num_slots[int64_t{row} * tables.geometry.num_layers + layer];
    }
  }

  __device__ bool tiered() const { return placement_ == Placement::kTiered; }
  __device__ int32_t num_slots() const { return num_slots_; }  // Tiered only

  // Index in its pool of: local slot j; page or meta entry p; summary of partition p.
  __device__ int64_t Slot(int32_t j) const { return IndexIn(tables_.slot_dir, j); }
  __device__ int64_t HostPage(int32_t p) const { return IndexIn(tables_.host_dir, p); }
  __device__ int64_t Summary(int32_t p) const {
    const KvGeometry& g = tables_.geometry;
    const int32_t partitions = g.extent_partitions();
    const int32_t extent = tables_.summary_dir[dir_ + p / partitions];
    SPIN_DEVICE_CHECK(extent >= 0);
    return g.SummaryIndex(extent, head_, p % partitions);
  }
  __device__ int64_t Meta(int32_t p) const { return IndexIn(tables_.meta_dir, p); }

  // The slot that holds page p. REQUIRES: it is resident.
  __device__ int64_t SlotOfPage(int32_t p) const {
    return Slot(tiered() ? tables_.meta[Meta(p)] : p);
  }

  // Page p where it can be read: its slot if it is resident, else the host's copy.
  __device__ const char* PageBytes(int32_t p) const {
    const int32_t local = tiered() ? tables_.meta[Meta(p)] : p;
    return local >= 0 ? PageAt(tables_.slots, tables_.geometry, Slot(local))
                      : PageAt(tables_.host_pages, tables_.geometry, HostPage(p));
  }

 private:
  __device__ int64_t IndexIn(const int32_t* directory, int32_t i) const {
    const KvGeometry& g = tables_.geometry;
    const int32_t pages = g.extent_pages();
    const int32_t extent = directory[dir_ + i / pages];
    SPIN_DEVICE_CHECK(extent >= 0);
    return g.PageIndex(extent, head_, i % pages);
  }

  const KvTables& tables_;
  int32_t head_;
  int64_t dir_;  // first directory entry of (row, layer)
  Placement placement_;
  int32_t num_slots_ = 0;
};

// Entries of a step that are in use.
__device__ __forceinline__ int32_t NumRows(const DecodeRows& decode) {
  return *decode.num_rows;
}

// A load that is not moved behind a branch that follows, as ptxas moves any other: what belongs to a place comes with
// the count of rows, and means nothing past it.
template <typename T>
__device__ __forceinline__ T LoadNow(const T* from) {
  return *static_cast<const volatile T*>(from);
}

// Elements of a row of fused q, k, v.
__host__ __device__ __forceinline__ int64_t QkvWidth(const KvGeometry& g) {
  return int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
}
// Key of KV head `head` of batch place (or packed token) `i`; its value lies num_kv_heads * head_dim elements further.
template <typename T>
__device__ __forceinline__ const T* KeyOf(const void* qkv, const KvGeometry& g, int64_t i,
                                          int32_t head) {
  return static_cast<const T*>(qkv) + i * QkvWidth(g) + int64_t{g.num_q_heads + head} * g.head_dim;
}

// Staging on this backend: for each KV head the keys of all its tokens, then their values: [Hkv][2][num_pages * P][d].
// A token's place in staging counts tokens, as kv_index does.
struct StagingView {
  __device__ StagingView(const Staging& staging, const KvGeometry& g)
      : pages(static_cast<char*>(staging.pages)),
        plane_bytes(int64_t{staging.num_pages} * g.plane_elements() * SizeOf(g.dtype)),
        token_bytes(int64_t{g.head_dim} * SizeOf(g.dtype)) {}

  __device__ char* Key(int32_t head, int64_t token) const {
    return pages + 2 * head * plane_bytes + token * token_bytes;
  }
  __device__ char* Value(int32_t head, int64_t token) const {
    return Key(head, token) + plane_bytes;
  }

  char* pages;
  int64_t plane_bytes;
  int64_t token_bytes;
};

}  // namespace spin::cuda
