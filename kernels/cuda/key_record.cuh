// Where the factor of a page of keys lies on the device, and which pages a gather leaves the keys of behind. The twin
// of kernels/cpu/key_record.h.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {

__device__ __forceinline__ bool IsNan(const char* element, DType dtype) {
  if (dtype == DType::kF32) {
    return (*reinterpret_cast<const uint32_t*>(element) & 0x7fffffffu) > 0x7f800000u;
  }
  return (*reinterpret_cast<const uint16_t*>(element) & 0x7fffu) > 0x7f80u;
}

// The basis of (row, layer), [Hkv * d][key_rank].
__device__ __forceinline__ char* BasisAt(const KvTables& t, int32_t row, int32_t layer) {
  return static_cast<char*>(t.key_basis) +
         t.geometry.BasisIndex(row, layer) * t.geometry.key_basis_bytes();
}
__device__ __forceinline__ bool HasBasis(const KvTables& t, int32_t row, int32_t layer) {
  return !IsNan(BasisAt(t, row, layer), t.geometry.dtype);
}

// Whether the keys of page `page` are rebuilt, when the row's newest token is at `position` and the stream lists
// `listed` pages: GatherPagesParams.
__device__ __forceinline__ bool RebuildsKeys(const KvTables& t, int32_t row, int32_t layer,
                                             int32_t head, int32_t page, int32_t position,
                                             int32_t listed, int32_t whole_last) {
  const KvGeometry& g = t.geometry;
  const int32_t last = position / g.page_tokens;
  if (page > last - whole_last || listed > last) return false;
  const char* summary = static_cast<const char*>(t.summaries) +
                        StreamView(t, row, layer, head).Summary(page) * g.summary_bytes();
  // Both reads in flight together.
  const bool has_basis = HasBasis(t, row, layer), outlier = IsNan(summary, g.dtype);
  return has_basis && !outlier;
}

// Elements from the summaries' begin to those of head 0's piece of the page.
__device__ __forceinline__ int64_t RecordAt(const KvTables& t, int32_t row, int32_t layer,
                                            int32_t page) {
  return StreamView(t, row, layer, 0).Summary(page) * t.geometry.summary_elements +
         t.geometry.head_dim;
}
// And from there to element `i` of the page's factor.
__device__ __forceinline__ int32_t PieceOffset(const KvGeometry& g, int32_t i) {
  const int32_t piece = g.key_piece();
  return i / piece * g.extent_pages() * g.summary_elements + i % piece;
}

// Whether the prompt is long enough for a factor: KeyFactorPrefillParams.
__device__ __forceinline__ bool HasFactor(const PrefillSlice& slice, const KvGeometry& g) {
  return slice.prefix_tokens + slice.num_tokens >= g.key_width();
}

}  // namespace spin::cuda
