// How one thread block applies the commands that change tables, a window of the list at a time: update_tables.cu.
//
// A command a thread, and a window in phases:
//   - A phase ends behind a command that sets a placement, and before one that reads the tables: kBindSlots, and
//     kSetNumSlots where it takes slots away. Such a command is then done by the whole block.
//   - Within a phase commands only write. Of those for one entry the last one counts; a hash table in shared memory
//     finds it. All fills of granted extents write the same value (absent, age 0) to memory that nothing else of the
//     phase touches, hence in any order and any number of times; those whose directory entry does not last count too.
// A kSetNumSlots that takes nothing away is an ordinary write: the 36 of an admission end no phase.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/params.h"

namespace spin::cuda {

using enum TableCommandKind;

constexpr int kWindow = 1024;  // commands, and threads
constexpr int kBuckets = 2 * kWindow;
constexpr int kCommandWords = sizeof(TableCommand) / sizeof(int32_t);
static_assert(sizeof(TableCommand) == kCommandWords * sizeof(int32_t));
static_assert(kWindow == kWarp * kWarp, "a warp's lanes are the block's warps");

struct TableWindow {
  int32_t words[kWindow * kCommandWords];  // the window's commands
  int32_t claimed[kBuckets];               // a command for the bucket's entry, or kAbsent
  int32_t last[kBuckets];                  // the last one of the phase for it
  int32_t end;                             // of the phase

  __device__ TableCommand Command(int32_t i) const {
    const int32_t* word = words + i * kCommandWords;
    return {.kind = static_cast<TableCommandKind>(word[0]),
            .row = word[1],
            .layer = word[2],
            .index = word[3],
            .value = word[4]};
  }
};

// The entry that a command writes in a phase; null for commands that do something else.
__device__ inline int32_t* EntryOf(const KvTables& t, const TableCommand& c) {
  const int64_t at = t.geometry.DirIndex(c.row, c.layer, c.index);
  switch (c.kind) {
    case kSetPlacement:
      return t.placement + c.row;
    case kSetNumSlots:
      return t.num_slots + int64_t{c.row} * t.geometry.num_layers + c.layer;
    case kSetSlotExtent:
    case kShareSlotExtent:
      return t.slot_dir + at;
    case kSetHostExtent:
      return t.host_dir + at;
    case kSetSummaryExtent:
      return t.summary_dir + at;
    case kSetMetaSegment:
      return t.meta_dir + at;
    default:
      return nullptr;
  }
}

// Sets to[0 .. n) by one warp.
template <typename T>
__device__ void Fill(T* to, int32_t n, T value, int32_t lane) {
  constexpr int32_t kPerStore = 16 / sizeof(T);
  if (reinterpret_cast<uintptr_t>(to) % 16 == 0 && n % kPerStore == 0) {
    const auto word = static_cast<uint32_t>(static_cast<int32_t>(value));  // all bytes alike
    for (int32_t i = lane; i < n / kPerStore; i += kWarp) {
      reinterpret_cast<uint4*>(to)[i] = make_uint4(word, word, word, word);
    }
  } else {
    for (int32_t i = lane; i < n; i += kWarp) to[i] = value;
  }
}

class TableWriter {
 public:
  __device__ TableWriter(const KvTables& tables, TableWindow& window)
      : t_(tables), g_(tables.geometry), window_(window) {}

  // Applies the first `count` commands of the window. Called by all threads, behind a barrier.
  __device__ void ApplyWindow(int32_t count) {
    const TableCommand mine = window_.Command(Thread());
    for (int32_t begin = 0; begin < count;) {
      const int32_t end = ApplyPhase(mine, begin, count);
      begin = end;
      if (end == count) break;
      const TableCommand next = window_.Command(end);
      if (next.kind == kBindSlots) {
        BindSlots(next);
      } else if (next.kind == kSetNumSlots) {
        SetNumSlots(next);
      } else {
        continue;
      }
      ++begin;
      __syncthreads();
    }
  }

 private:
  __device__ static int32_t Thread() { return static_cast<int32_t>(threadIdx.x); }

  // Does the commands of a phase that begins with `begin` and returns its end.
  __device__ int32_t ApplyPhase(const TableCommand& mine, int32_t begin, int32_t count) {
    if (threadIdx.x == 0) window_.end = count;
    __syncthreads();
    if (Thread() >= begin && Thread() < count) {
      const int32_t end = Thread() + (mine.kind == kSetPlacement ? 1 : 0);
      if (EndsPhase(mine)) atomicMin(&window_.end, end);
    }
    int32_t* const entry = EntryOf(t_, mine);
    bool writes = ClaimEntries(entry, begin);
    // Whether the second of two counts takes slots away depends on the first: the phase must not hold both. What is
    // left of it after a cut before the first has no such pair.
    const bool twice = mine.kind == kSetNumSlots && entry != nullptr && Within(begin) && !writes;
    if (__syncthreads_or(twice)) {
      if (twice) atomicMin(&window_.end, Thread());
      writes = ClaimEntries(entry, begin);
    }
    if (writes) *entry = mine.value;
    const int32_t end = window_.end;
    FillGranted(begin, end);
    __syncthreads();
    return end;
  }

  __device__ bool Within(int32_t begin) const {
    return Thread() >= begin && Thread() < window_.end;
  }

  // A count that takes slots away reads what the phase writes; so does every binding. Placements end a phase because
  // they say whether a count takes anything away.
  __device__ bool EndsPhase(const TableCommand& c) const {
    if (c.kind != kSetNumSlots) return c.kind == kBindSlots || c.kind == kSetPlacement;
    return t_.placement[c.row] == static_cast<int32_t>(Placement::kTiered) &&
           c.value < t_.num_slots[int64_t{c.row} * g_.num_layers + c.layer];
  }

  // Whether this thread's command is the last of the phase for its entry. Called by all threads.
  __device__ bool ClaimEntries(const int32_t* entry, int32_t begin) {
    for (int32_t i = Thread(); i < kBuckets; i += kWindow) {
      window_.claimed[i] = kAbsent;
      window_.last[i] = kAbsent;
    }
    __syncthreads();  // window_.end holds, too
    const bool claims = entry != nullptr && Within(begin);
    uint32_t bucket = 0;
    if (claims) {
      // Entries are aligned to 4 bytes, and neighbours in a directory follow each other.
      bucket =
          static_cast<uint32_t>(reinterpret_cast<uintptr_t>(entry) / 4 * 0x9E3779B97F4A7C15u >> 32);
      for (;; ++bucket) {
        bucket %= kBuckets;
        const int32_t other = atomicCAS(&window_.claimed[bucket], kAbsent, Thread());
        if (other == kAbsent || EntryOf(t_, window_.Command(other)) == entry) break;
      }
      atomicMax(&window_.last[bucket], Thread());
    }
    __syncthreads();
    return claims && window_.last[bucket] == Thread();
  }

  // Owners, ages and meta entries of the extents that commands [begin, end) grant become absent. A lane looks at a
  // command, the warp fills what its lanes find; neighbouring commands belong to different warps.
  __device__ void FillGranted(int32_t begin, int32_t end) {
    const int32_t lane = Thread() % kWarp;
    const int32_t i = lane * kWarp + Thread() / kWarp;
    const TableCommand c = window_.Command(i);
    const bool grants = i >= begin && i < end && c.value != kAbsent &&
                        (c.kind == kSetSlotExtent || c.kind == kSetMetaSegment);
    const int32_t n = g_.pages_per_extent();
    for (uint32_t left = __ballot_sync(kAllLanes, grants); left != 0; left &= left - 1) {
      const TableCommand grant = window_.Command((__ffs(left) - 1) * kWarp + Thread() / kWarp);
      const int64_t first = g_.PageIndex(grant.value, 0, 0);
      if (grant.kind == kSetMetaSegment) {
        Fill(t_.meta + first, n, kAbsent, lane);
      } else {
        Fill(t_.slot_owner + first, n, kAbsent, lane);
        Fill(t_.slot_age + first, n, uint8_t{0}, lane);
      }
    }
  }

  // Entry i of a head in a pool that `directory` maps, or null where nothing is mapped.
  template <typename T>
  __device__ T* Find(T* pool, const int32_t* directory, const TableCommand& c, int32_t head,
                     int32_t i) const {
    const int32_t e = i / g_.extent_pages();
    if (e >= g_.max_extents) return nullptr;
    const int32_t extent = directory[g_.DirIndex(c.row, c.layer, e)];
    if (extent == kAbsent) return nullptr;
    return pool + g_.PageIndex(extent, head, i % g_.extent_pages());
  }

  // A smaller budget frees the slots at the end, so that no meta entry names a slot that is gone. By the whole block.
  __device__ void SetNumSlots(const TableCommand& c) {
    int32_t& num_slots = t_.num_slots[int64_t{c.row} * g_.num_layers + c.layer];
    const int32_t freed = min(num_slots, g_.max_pages()) - c.value;  // nothing is mapped beyond
    const bool tiered = t_.placement[c.row] == static_cast<int32_t>(Placement::kTiered);
    __syncthreads();  // all have read it
    if (threadIdx.x == 0) num_slots = c.value;
    if (!tiered || freed <= 0) return;
    for (int32_t i = Thread(); i < freed * g_.num_kv_heads; i += kWindow) {
      const int32_t head = i / freed;
      const int32_t j = c.value + i % freed;
      int32_t* slot = Find(t_.slot_owner, t_.slot_dir, c, head, j);
      const int32_t owner = slot == nullptr ? kAbsent : *slot;
      if (owner == kAbsent) continue;
      if (int32_t* meta = Find(t_.meta, t_.meta_dir, c, head, owner)) *meta = kAbsent;
      *slot = kAbsent;
      *Find(t_.slot_age, t_.slot_dir, c, head, j) = 0;
    }
  }

  // By the whole block.
  __device__ void BindSlots(const TableCommand& c) {
    const int32_t num_slots = t_.num_slots[int64_t{c.row} * g_.num_layers + c.layer];
    const int32_t bound = min(num_slots, c.value - c.index);  // slots of a head; none if negative
    for (int32_t i = Thread(); i < bound * g_.num_kv_heads; i += kWindow) {
      const int32_t head = i / bound;
      const int32_t j = i % bound;
      int32_t* owner = Find(t_.slot_owner, t_.slot_dir, c, head, j);
      int32_t* meta = Find(t_.meta, t_.meta_dir, c, head, c.index + j);
      SPIN_DEVICE_CHECK(owner != nullptr && meta != nullptr);
      *owner = c.index + j;
      *meta = j;
      *Find(t_.slot_age, t_.slot_dir, c, head, j) = 0;
    }
  }

  const KvTables& t_;
  const KvGeometry& g_;
  TableWindow& window_;
};

}  // namespace spin::cuda
