#include "memory/extent_pool.h"

#include <limits>

#include "common/check.h"

namespace spin {

ExtentPool::ExtentPool(int32_t num_extents) {
  SPIN_CHECK_GE(num_extents, 0);
  references_.assign(static_cast<size_t>(num_extents), 0);
  free_.reserve(references_.size());
  for (int32_t extent = num_extents - 1; extent >= 0; --extent) free_.push_back(extent);
}

std::optional<ExtentId> ExtentPool::Allocate() {
  if (free_.empty()) return std::nullopt;
  const ExtentId extent{free_.back()};
  SPIN_CHECK_EQ(references(extent), 0);
  free_.pop_back();
  references_[static_cast<size_t>(extent.value)] = 1;
  return extent;
}

void ExtentPool::Share(ExtentId extent) {
  SPIN_CHECK_GT(references(extent), 0);
  SPIN_CHECK_LT(references(extent), std::numeric_limits<int32_t>::max());
  ++references_[static_cast<size_t>(extent.value)];
}

bool ExtentPool::Release(ExtentId extent) {
  SPIN_CHECK_GT(references(extent), 0);
  if (--references_[static_cast<size_t>(extent.value)] > 0) return false;
  SPIN_CHECK_LT(num_free(), total());
  free_.push_back(extent.value);
  return true;
}

int32_t ExtentPool::references(ExtentId extent) const {
  SPIN_CHECK(extent.value >= 0 && extent.value < total());
  return references_[static_cast<size_t>(extent.value)];
}

void ExtentPool::CheckInvariants() const {
  int32_t unreferenced = 0;
  for (const int32_t count : references_) {
    SPIN_CHECK_GE(count, 0);
    if (count == 0) ++unreferenced;
  }
  SPIN_CHECK_EQ(unreferenced, num_free());
  std::vector<bool> seen(references_.size());
  for (const int32_t extent : free_) {
    SPIN_CHECK_EQ(references(ExtentId{extent}), 0);
    SPIN_CHECK(!seen[static_cast<size_t>(extent)]);
    seen[static_cast<size_t>(extent)] = true;
  }
}

}  // namespace spin
