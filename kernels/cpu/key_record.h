// Where the factor of a page of keys lies, and which pages a gather leaves the keys of behind.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {

// A page's factor [P][key_rank], in pieces at the ends of its heads' summaries (kv_layout.h).
template <typename T>
class KeyRecord {
 public:
  KeyRecord(const KvTables& t, int32_t row, int32_t layer, int32_t page)
      : piece_(t.geometry.key_piece()),
        pitch_(int64_t{t.geometry.extent_pages()} * t.geometry.summary_elements),
        first_(static_cast<T*>(t.summaries) +
               StreamView(t, row, layer, 0).Summary(page) * t.geometry.summary_elements +
               t.geometry.head_dim) {}

  // Elements i .. i + 7 of the factor; i is a multiple of 8.
  T* Run(int32_t i) const { return first_ + i / piece_ * pitch_ + i % piece_; }

 private:
  int32_t piece_;
  int64_t pitch_;  // from head to head
  T* first_;
};

inline bool IsNan(const void* element, DType dtype) {
  if (dtype == DType::kF32) {
    uint32_t bits;
    std::memcpy(&bits, element, sizeof(bits));
    return (bits & 0x7fffffff) > 0x7f800000;
  }
  uint16_t bits;
  std::memcpy(&bits, element, sizeof(bits));
  return (bits & 0x7fff) > 0x7f80;
}

// The basis of (row, layer), [Hkv * d][key_rank].
inline char* BasisAt(const KvTables& t, int32_t row, int32_t layer) {
  return static_cast<char*>(t.key_basis) +
         t.geometry.BasisIndex(row, layer) * t.geometry.key_basis_bytes();
}
inline bool HasBasis(const KvTables& t, int32_t row, int32_t layer) {
  return !IsNan(BasisAt(t, row, layer), t.geometry.dtype);
}

// Whether the keys of page `page` are rebuilt, when the row's newest token is at `position` and the stream lists
// `listed` pages: GatherPagesParams.
inline bool RebuildsKeys(const KvTables& t, int32_t row, int32_t layer, int32_t head, int32_t page,
                         int32_t position, int32_t listed, int32_t whole_last) {
  const KvGeometry& g = t.geometry;
  const int32_t last = position / g.page_tokens;
  if (whole_last == 0 || page > last - whole_last || listed > last) return false;
  const char* summary = static_cast<const char*>(t.summaries) +
                        StreamView(t, row, layer, head).Summary(page) * g.summary_bytes();
  return HasBasis(t, row, layer) && !IsNan(summary, g.dtype);
}

}  // namespace spin::cpu
