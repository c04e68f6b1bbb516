// Residency, victims and lists of one layer's selected partitions. Serial and exact within a
// stream, so that a CUDA kernel can match it bit for bit.
//
// A row that is Resident: page p is slot p; nothing to look up, nothing to count. For a stream of a
// Tiered row, where `tail` is the partition of the new token, and fresh when that token opens it
// (nothing to fetch):
//
//   1  each selected id: the meta entry says hit (its slot) or miss. kNone: every id but the tail
//   is a miss. 2  each local slot that holds a partition: age 0 if the partition is selected, else
//   min(age + 1, 63). 3  victims. kBucketed: need = misses - free slots, if positive: the `need`
//   oldest partitions that are not selected,
//      by age from the histogram, within the youngest age concerned by ascending slot. kLastStep:
//      all that are not selected. kNone: all but the tail. A victim's meta entry becomes kAbsent,
//      its slot free with age 0.
//   4  misses in ascending id take free slots in ascending local slot: owner, meta, age 0.
//   5  lists: slots in the ids' order; copies of the misses in ascending id, without a fresh tail.
//   With ready_tokens what is not copied moves to the list's front. Masks go where their pages go.
//
// A fresh tail counts as neither hit nor miss.
#include <algorithm>
#include <array>
#include <atomic>

#include "kernels/cpu/families.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMiss = -1;  // in a page list, until its slot is known

// The selection of a stream, in one form for listed ids and "all pages".
struct Selection {
  const int32_t* ids = nullptr;  // null: 0, 1, 2...
  int32_t count = 0;
  int32_t tail = 0;
  bool fresh_tail = false;

  int32_t operator[](int32_t i) const { return ids == nullptr ? i : ids[i]; }
};

// A Tiered stream's lookup; the steps of the rule are its methods, in order.
class TieredLookup {
 public:
  TieredLookup(const KvTables& tables, const StreamView& stream, Eviction eviction,
               const Selection& selection, int32_t* page_list)
      : t_(tables), stream_(stream), eviction_(eviction), selected_(selection), list_(page_list) {
    SPIN_CHECK_GE(stream.num_slots(), selection.count);
  }

  RetrieveCounters Run(int64_t* copy_src, int32_t* copy_dst, int32_t* copy_len) {
    HitTest();
    AgeSlots();
    if (eviction_ == Eviction::kBucketed) {
      if (misses_ > free_) EvictOldest(misses_ - free_);
    } else {
      EvictUnkept();
    }
    PlaceMisses(copy_src, copy_dst, copy_len);
    return counts_;
  }

 private:
  static constexpr uint8_t kSelected = 0xff;  // an age that no slot has between steps

  void HitTest() {
    for (int32_t i = 0; i < selected_.count; ++i) {
      const int32_t id = selected_[i];
      SPIN_CHECK(id >= 0 && id <= selected_.tail && (i == 0 || id > selected_[i - 1]));
      const int32_t local = t_.meta[stream_.Meta(id)];
      const bool hit = local != kAbsent && (eviction_ != Eviction::kNone || id == selected_.tail);
      if (hit) {
        const int64_t slot = stream_.Slot(local);
        t_.slot_age[slot] = kSelected;
        list_[i] = static_cast<int32_t>(slot);
      } else {
        list_[i] = kMiss;
        ++misses_;
      }
      if (id == selected_.tail && selected_.fresh_tail) continue;
      ++(hit ? counts_.hits : counts_.misses);
    }
  }

  void AgeSlots() {
    ForEachSlot([&](int32_t, int64_t slot) {
      if (t_.slot_owner[slot] == kAbsent) {
        ++free_;
        return true;
      }
      uint8_t& age = t_.slot_age[slot];
      age = age == kSelected ? 0 : static_cast<uint8_t>(std::min(age + 1, kMaxAge));
      ++histogram_[age];
      return true;
    });
  }

  // From here on: a slot in use has age 0 if and only if its partition is selected (and hit).

  void EvictOldest(int32_t need) {
    int32_t threshold = kMaxAge;  // evict all older, and `need` of this age
    while (need > histogram_[threshold]) {
      need -= histogram_[threshold--];
      SPIN_CHECK_GT(threshold, 0);
    }
    ForEachSlot([&](int32_t, int64_t slot) {
      if (t_.slot_owner[slot] == kAbsent || t_.slot_age[slot] < threshold) return true;
      if (t_.slot_age[slot] == threshold && need-- <= 0) return true;
      Evict(slot);
      return true;
    });
  }

  void EvictUnkept() {
    ForEachSlot([&](int32_t, int64_t slot) {
      const int32_t owner = t_.slot_owner[slot];
      const bool keep =
          eviction_ == Eviction::kNone ? owner == selected_.tail : t_.slot_age[slot] == 0;
      if (owner != kAbsent && !keep) Evict(slot);
      return true;
    });
  }

  void Evict(int64_t slot) {
    t_.meta[stream_.Meta(t_.slot_owner[slot])] = kAbsent;
    t_.slot_owner[slot] = kAbsent;
    t_.slot_age[slot] = 0;
    ++counts_.evictions;
  }

  void PlaceMisses(int64_t* copy_src, int32_t* copy_dst, int32_t* copy_len) {
    *copy_len = 0;
    if (misses_ == 0) return;
    int32_t i = 0;  // the next miss of the list
    int32_t left = misses_;
    ForEachSlot([&](int32_t local, int64_t slot) {
      if (t_.slot_owner[slot] != kAbsent) return true;
      while (list_[i] != kMiss) ++i;
      const int32_t id = selected_[i];
      t_.slot_owner[slot] = id;
      t_.slot_age[slot] = 0;
      t_.meta[stream_.Meta(id)] = local;
      list_[i] = static_cast<int32_t>(slot);
      if (id != selected_.tail || !selected_.fresh_tail) {
        copy_src[*copy_len] = stream_.HostPage(id);
        copy_dst[*copy_len] = static_cast<int32_t>(slot);
        ++*copy_len;
      }
      return --left > 0;
    });
    SPIN_CHECK_EQ(left, 0);
  }

  // Calls visit(local slot, index in the pool) in ascending local slot, until it returns false.
  template <typename Visit>
  void ForEachSlot(Visit visit) const {
    const int32_t per_extent = t_.geometry.extent_pages();
    for (int32_t begin = 0; begin < stream_.num_slots(); begin += per_extent) {
      const int64_t first = stream_.Slot(begin);
      const int32_t n = std::min(per_extent, stream_.num_slots() - begin);
      for (int32_t k = 0; k < n; ++k) {
        if (!visit(begin + k, first + k)) return;
      }
    }
  }

  const KvTables& t_;
  const StreamView& stream_;
  const Eviction eviction_;
  const Selection& selected_;
  int32_t* list_;
  int32_t misses_ = 0;  // slots to find, a fresh tail's included
  int32_t free_ = 0;
  std::array<int32_t, kMaxAge + 1> histogram_ = {};
  RetrieveCounters counts_;
};

// Moves the slots that nothing is copied to to the list's front, and `masks` (or null) in the list's order to
// `list_masks`; both parts stay in order, so the tail is the last of its part. Returns the tokens of the first.
int32_t PutReadyFirst(const int32_t* copy_dst, int32_t num_copies, int32_t position,
                      int32_t page_tokens, const uint8_t* masks, int32_t* list, int32_t length,
                      uint8_t* list_masks) {
  const int32_t tail_tokens = position % page_tokens + 1;
  const bool tail_copied = num_copies > 0 && list[length - 1] == copy_dst[num_copies - 1];
  const int32_t num_ready = length - num_copies;
  int32_t ready = 0, copied = 0;
  for (int32_t i = 0; i < length; ++i) {
    const bool copy = copied < num_copies && list[i] == copy_dst[copied];
    if (masks != nullptr) list_masks[copy ? num_ready + copied : ready] = masks[i];
    if (copy) {
      ++copied;
    } else {
      list[ready++] = list[i];
    }
  }
  SPIN_CHECK_EQ(copied, num_copies);
  std::copy_n(copy_dst, num_copies, list + ready);
  return ready * page_tokens - (tail_copied ? 0 : page_tokens - tail_tokens);
}

// Other streams of the row may be adding, too.
void Add(const RetrieveCounters& counts, RetrieveCounters& row) {
  const auto add = [](uint64_t& counter, uint64_t value) {
    if (value != 0) std::atomic_ref(counter).fetch_add(value, std::memory_order_relaxed);
  };
  add(row.hits, counts.hits);
  add(row.misses, counts.misses);
  add(row.evictions, counts.evictions);
}

void LookupStream(const LookupParams& p, int64_t i) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t row = p.decode.rows[i / g.num_kv_heads];
  const int32_t position = p.decode.position[row];
  Selection selection;
  selection.tail = position / g.page_tokens;
  selection.fresh_tail = position % g.page_tokens == 0;
  selection.ids = p.ids == nullptr ? nullptr : p.ids + i * p.max_selected;
  selection.count = p.ids == nullptr ? selection.tail + 1 : p.count[i];
  SPIN_CHECK(selection.count >= 1 && selection.count <= p.max_list);
  SPIN_CHECK_EQ(selection[selection.count - 1], selection.tail);

  int32_t* list = p.page_list + i * p.max_list;
  p.list_len[i] = selection.count;
  const StreamView stream(p.tables, row, p.layer, static_cast<int32_t>(i % g.num_kv_heads));
  int32_t* copy_dst = p.copy_dst + i * p.max_list;
  p.copy_len[i] = 0;
  if (stream.tiered()) {
    TieredLookup lookup(p.tables, stream, p.eviction, selection, list);
    Add(lookup.Run(p.copy_src + i * p.max_list, copy_dst, p.copy_len + i), p.counters[row]);
  } else {
    for (int32_t k = 0; k < selection.count; ++k) {
      list[k] = static_cast<int32_t>(stream.Slot(selection[k]));
    }
  }
  const uint8_t* masks = p.page_mask == nullptr ? nullptr : p.page_mask + i * p.max_selected;
  uint8_t* list_masks = masks == nullptr ? nullptr : p.list_mask + i * p.max_list;
  if (p.ready_tokens != nullptr) {
    p.ready_tokens[i] = PutReadyFirst(copy_dst, p.copy_len[i], position, g.page_tokens, masks, list,
                                      selection.count, list_masks);
  } else if (masks != nullptr) {
    std::copy_n(masks, selection.count, list_masks);
  }
}

}  // namespace

void Lookup(const LookupParams& p, ThreadPool& pool) {
  SPIN_CHECK(p.page_mask == nullptr || (p.ids != nullptr && p.list_mask != nullptr));
  const int64_t streams = int64_t{NumRows(p.decode)} * p.tables.geometry.num_kv_heads;
  pool.ParallelFor(streams, 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) LookupStream(p, i);
  });
}

}  // namespace spin::cpu
