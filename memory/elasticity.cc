#include "memory/elasticity.h"

#include <algorithm>

#include "common/check.h"

namespace spin {
namespace {

// Changes holders by one extent `extents` times, always the one whose next extent is first in
// `before`, as long as one `can_step`. A step moves its holder alone, so a heap finds the next.
// `next(holder)` is the number of the extent that a step would take.
template <typename CanStep, typename Next, typename Before>
int64_t Distribute(int64_t extents, std::span<BufferHolder> holders, std::vector<int32_t>& heap,
                   const CanStep& can_step, const Next& next, const Before& before) {
  SPIN_CHECK_GE(extents, 0);
  heap.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(holders.size()); ++i) {
    BufferHolder& holder = holders[static_cast<size_t>(i)];
    SPIN_CHECK(holder.weight > 0 && holder.held >= 0 && holder.held <= holder.most);
    holder.change = 0;
    if (can_step(holder)) heap.push_back(i);
  }
  // Whether extent next(a) of holder a has a lower rank than next(b) of b.
  const auto ranks_lower = [&](int32_t a, int32_t b) {
    const BufferHolder& x = holders[static_cast<size_t>(a)];
    const BufferHolder& y = holders[static_cast<size_t>(b)];
    const int64_t left = next(x) * y.weight, right = next(y) * x.weight;
    return left != right ? left < right : a < b;
  };
  const auto behind = [&](int32_t a, int32_t b) { return before(ranks_lower, b, a); };
  std::make_heap(heap.begin(), heap.end(), behind);
  int64_t changed = 0;
  for (; changed < extents && !heap.empty(); ++changed) {
    std::pop_heap(heap.begin(), heap.end(), behind);
    BufferHolder& holder = holders[static_cast<size_t>(heap.back())];
    ++holder.change;
    if (can_step(holder)) {
      std::push_heap(heap.begin(), heap.end(), behind);
    } else {
      heap.pop_back();
    }
  }
  return changed;
}

}  // namespace

int64_t PlanHandOut(int64_t extents, std::span<BufferHolder> holders, std::vector<int32_t>& heap) {
  return Distribute(
      extents, holders, heap, [](const BufferHolder& h) { return h.held + h.change < h.most; },
      [](const BufferHolder& h) { return h.held + h.change; },
      [](const auto& lower, int32_t a, int32_t b) { return lower(a, b); });
}

int64_t PlanReclaim(int64_t extents, std::span<BufferHolder> holders, std::vector<int32_t>& heap) {
  return Distribute(
      extents, holders, heap, [](const BufferHolder& h) { return h.change < h.held; },
      [](const BufferHolder& h) { return h.held - h.change - 1; },
      [](const auto& lower, int32_t a, int32_t b) { return lower(b, a); });
}

}  // namespace spin
