// Ids of explicit width that do not mix: a SlotId is no PageId. Plain int32 inside device tables (see
// memory/README.md).
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <ostream>

namespace spin {

template <typename Tag, typename Rep>
struct StrongId {
  Rep value = 0;
  friend constexpr auto operator<=>(const StrongId&, const StrongId&) = default;
  friend std::ostream& operator<<(std::ostream& out, const StrongId& id) { return out << id.value; }
  template <typename H>
  friend H AbslHashValue(H h, const StrongId& id) {
    return H::combine(std::move(h), id.value);
  }
};

using RequestId = StrongId<struct RequestTag, uint64_t>;  // one per client request, never reused
using RowId = StrongId<struct RowTag, int32_t>;           // row of the device tables, reused
using ExtentId = StrongId<struct ExtentTag, int32_t>;     // extent of a pool, reused

}  // namespace spin
