#include "tools/trace/cache_policy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check.h"
#include "kernels/kv_layout.h"

namespace spin::trace {
namespace {

constexpr int32_t kNever = std::numeric_limits<int32_t>::max();

// For each id of each step, the next step that selects it; and for each page, the first one.
struct NextUse {
  NextUse(const TraceHeader& header, const StreamTrace& stream)
      : first(static_cast<size_t>(header.num_pages()), kNever), after(stream.ids.size()) {
    for (int32_t step = header.num_steps; step-- > 0;) {
      const std::span<const int32_t> ids = stream.At(step);
      const size_t begin = static_cast<size_t>(ids.data() - stream.ids.data());
      for (size_t i = 0; i < ids.size(); ++i) {
        int32_t& next = first[static_cast<size_t>(ids[i])];
        after[begin + i] = next;
        next = step;
      }
    }
  }
  std::vector<int32_t> first;  // [num_pages]
  std::vector<int32_t> after;  // as StreamTrace::ids
};

// One stream's slots. A page's rank says who leaves first: the highest, ties to the lowest slot.
class SlotCache {
 public:
  SlotCache(const TraceHeader& header, const StreamTrace& stream, Policy policy, int32_t num_slots)
      : header_(header),
        stream_(stream),
        policy_(policy),
        slots_(static_cast<size_t>(num_slots)),
        selected_(static_cast<size_t>(header.num_pages()), false),
        next_use_(header, stream) {
    const int32_t prompt_pages = header.Tail(-1) + 1;
    const int32_t held = std::min(prompt_pages, num_slots);
    for (int32_t j = 0; j < held; ++j)
      Hold(slots_[static_cast<size_t>(j)], prompt_pages - held + j);
  }

  HitCounts Step(int32_t step) {
    const std::span<const int32_t> ids = stream_.At(step);
    SPIN_CHECK_LE(ids.size(), slots_.size());
    tail_ = header_.Tail(step);
    for (const int32_t id : ids) selected_[static_cast<size_t>(id)] = true;
    const int32_t num_missing = FindMissing(ids);
    HitCounts counts = {.hits = static_cast<int64_t>(ids.size()) - num_missing,
                        .misses = num_missing};
    // The tail is the last id, hence the last that is missing.
    if (header_.FreshTail(step))
      --(num_missing > 0 && missing_.back() == tail_ ? counts.misses : counts.hits);
    Rank();
    Evict(num_missing);
    Place();
    const size_t begin = static_cast<size_t>(ids.data() - stream_.ids.data());
    for (size_t i = 0; i < ids.size(); ++i) {
      next_use_.first[static_cast<size_t>(ids[i])] = next_use_.after[begin + i];
      selected_[static_cast<size_t>(ids[i])] = false;
    }
    return counts;
  }

 private:
  struct Slot {
    int32_t owner = kAbsent;
    int32_t age = 0;
  };

  static void Hold(Slot& slot, int32_t page) { slot = {.owner = page, .age = 0}; }

  // The ids that no slot holds, ascending, into missing_; their number.
  int32_t FindMissing(std::span<const int32_t> ids) {
    missing_.assign(ids.begin(), ids.end());
    for (const Slot& slot : slots_) {
      const bool serves = policy_ != Policy::kNone || slot.owner == tail_;
      if (slot.owner == kAbsent || !selected_[static_cast<size_t>(slot.owner)] || !serves) continue;
      missing_.erase(std::ranges::lower_bound(missing_, slot.owner));
    }
    return static_cast<int32_t>(missing_.size());
  }

  // Ages, and the slots that may lose their page, those that go first in front.
  void Rank() {
    free_ = 0;
    candidates_.clear();
    for (Slot& slot : slots_) {
      if (slot.owner == kAbsent) {
        ++free_;
        continue;
      }
      const bool selected = selected_[static_cast<size_t>(slot.owner)];
      const int32_t oldest = policy_ == Policy::kBucketed ? kMaxAge : kNever - 1;
      slot.age = selected ? 0 : std::min(slot.age + 1, oldest);
      const bool kept = policy_ == Policy::kNone ? slot.owner == tail_ : selected;
      if (!kept) candidates_.push_back(&slot);
    }
    std::ranges::stable_sort(candidates_, std::greater<>(), [&](const Slot* slot) {
      return policy_ == Policy::kBelady ? next_use_.first[static_cast<size_t>(slot->owner)]
                                        : slot->age;
    });
  }

  void Evict(int32_t num_missing) {
    size_t victims = candidates_.size();
    if (policy_ != Policy::kNone && policy_ != Policy::kLastStep) {
      victims = static_cast<size_t>(std::max(0, num_missing - free_));
    }
    SPIN_CHECK_LE(victims, candidates_.size());
    for (size_t i = 0; i < victims; ++i) *candidates_[i] = {};
  }

  void Place() {
    auto slot = slots_.begin();
    for (const int32_t id : missing_) {
      slot = std::find_if(slot, slots_.end(), [](const Slot& s) { return s.owner == kAbsent; });
      SPIN_CHECK(slot != slots_.end());
      Hold(*slot, id);
    }
  }

  const TraceHeader& header_;
  const StreamTrace& stream_;
  const Policy policy_;
  std::vector<Slot> slots_;
  std::vector<bool> selected_;  // by page, in this step
  NextUse next_use_;            // .first: from this step on
  int32_t tail_ = 0;
  int32_t free_ = 0;
  std::vector<int32_t> missing_;
  std::vector<Slot*> candidates_;
};

}  // namespace

int32_t SlotsAt(const TraceHeader& header, double ratio) {
  SPIN_CHECK_GE(ratio, 1.0);
  const double selectable = std::ceil((header.budget_pages - header.fixed_pages) * ratio);
  const double slots = std::min<double>(header.num_pages(), header.fixed_pages + selectable);
  return static_cast<int32_t>(slots);
}

HitCounts ReplayStream(const TraceHeader& header, const StreamTrace& stream, Policy policy,
                       int32_t num_slots, int32_t first_counted) {
  SlotCache cache(header, stream, policy, num_slots);
  HitCounts sum;
  for (int32_t step = 0; step < header.num_steps; ++step) {
    const HitCounts counts = cache.Step(step);
    if (step >= first_counted) sum += counts;
  }
  return sum;
}

std::vector<HitCounts> ReplayLayers(const SelectionTrace& trace, Policy policy, int32_t num_slots,
                                    int32_t first_counted) {
  const TraceHeader& header = trace.header();
  std::vector<HitCounts> layers(static_cast<size_t>(header.num_layers));
  for (int32_t layer = 0; layer < header.num_layers; ++layer) {
    for (int32_t head = 0; head < header.num_kv_heads; ++head) {
      layers[static_cast<size_t>(layer)] +=
          ReplayStream(header, trace.stream(layer, head), policy, num_slots, first_counted);
    }
  }
  return layers;
}

}  // namespace spin::trace
