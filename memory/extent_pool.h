// The ids of one pool: which extents are free, and how many rows refer to the others.
//
// Bookkeeping alone; the bytes are in KvStore. Deterministic: the extent given back last is granted
// first, a fresh pool grants 0, 1, 2... Exhaustion is a value, not an error. Engine thread; nothing
// allocates after the constructor.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/ids.h"

namespace spin {

class ExtentPool {
 public:
  // REQUIRES: num_extents >= 0.
  explicit ExtentPool(int32_t num_extents);

  int32_t total() const { return static_cast<int32_t>(references_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_used() const { return total() - num_free(); }

  // An extent with one reference; nullopt when none is free.
  std::optional<ExtentId> Allocate();

  // One reference more. REQUIRES: in use.
  void Share(ExtentId extent);

  // One reference less; true when that was the last and the extent is free again. REQUIRES: in use.
  bool Release(ExtentId extent);

  // References to an extent; 0: free.
  int32_t references(ExtentId extent) const;

  // Aborts when the free list and the reference counts contradict each other.
  void CheckInvariants() const;

 private:
  std::vector<int32_t> references_;  // [total]
  std::vector<int32_t> free_;        // stack of the extents without references
};

}  // namespace spin
