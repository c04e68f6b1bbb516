// Residency, victims and lists of one layer's selected partitions: bit for bit kernels/cpu/lookup.cc, which has the
// rule, on one CTA a stream.
//
// Ids and slots are dealt to the warps in contiguous runs, so that a rank in list or slot order is what lower warps
// count (exchanged once) plus what the warp has counted so far: the number of barriers does not grow with the stream.
// What a warp works on stays in registers while its run fits there, and is read again from memory where it does not;
// it was written by the same thread.
//
//   mark    meta entries of the ids: hit or miss, and a bit for each slot that is hit
//   age     new ages; a histogram of them (kBucketed), or the eviction itself (kLastStep, kNone)
//   free    victims by age and rank; the r-th free slot is left where the r-th miss finds it
//   place   misses take their slots; with ready_tokens hits close up in front of them
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/lookup_stream.cuh"

namespace spin::cuda {
namespace {

constexpr int32_t kMiss = -1;  // in a page list, until its slot is known
constexpr int kAges = kMaxAge + 1;
static_assert(kAges == 2 * kWarp);  // a lane scans two ages

struct Shared {
  int32_t histogram[kWarps][kAges];  // of slots in use, by age
  int32_t misses[kWarps], free[kWarps], evicted[kWarps];
  int32_t tail_missing;  // 1: the tail is fresh and a miss; nothing to copy
  int32_t tail_slot;     // its local slot
  int32_t tail_copied;   // 1: the tail is a miss with tokens in it
};
extern __shared__ uint32_t selected_slots[];  // a bit for each local slot

class TieredLookup {
 public:
  __device__ TieredLookup(const LookupStream& stream, Shared& shared)
      : s_(stream),
        t_(stream.tables),
        shared_(shared),
        of_ids_(stream.count),
        of_slots_(stream.num_slots) {
    SPIN_DEVICE_CHECK(s_.num_slots >= s_.count && s_.num_slots <= t_.geometry.max_pages());
  }

  __device__ __forceinline__ void Run(RetrieveCounters* counters) {
    LoadIds(of_ids_.begin);
    LoadSlots(of_slots_.begin);  // in flight while the hits are found
    MarkHits();
    __syncthreads();
    AgeSlots();
    __syncthreads();
    Total();
    if (threadIdx.x == kThreads - 1) Report(counters);  // of the warp that has least to do
    if (misses_ > 0) FreeSlots();
    __syncthreads();
    if (misses_ > 0) PlaceMisses();
  }

 private:
  static constexpr int32_t kNoAge = kAges;  // none is as old

  // The ids from `base` of the warp's run, kAbsent past the end.
  __device__ __forceinline__ void LoadIds(int32_t base) {
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      const int32_t i = of_ids_.Entry(base, k);
      id_[k] = i >= 0 ? s_.Id(i) : kAbsent;
    }
  }

  // The slots from `base` of the warp's run: index in the pool (kAbsent past the end), owner, age.
  __device__ __forceinline__ void LoadSlots(int32_t base) {
    int32_t extent[kTiles];
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      const int32_t local = of_slots_.Entry(base, k);
      extent[k] = local >= 0 ? s_.slots.Extent(local) : kAbsent;
    }
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      const int32_t local = of_slots_.Entry(base, k);
      slot_[k] = kAbsent;
      owner_[k] = kAbsent;
      age_[k] = 0;
      if (local < 0) continue;
      slot_[k] = static_cast<int32_t>(s_.slots.Index(extent[k], local));
      owner_[k] = t_.slot_owner[slot_[k]];
      age_[k] = t_.slot_age[slot_[k]];
    }
  }

  // Step 1 of the rule.
  __device__ __forceinline__ void MarkHits() {
    int32_t misses = 0;
    for (int32_t base = of_ids_.begin; base < of_ids_.end; base += kHeld) {
      if (!of_ids_.fits()) LoadIds(base);
      misses += MarkPiece(base);
    }
    if (Lane() == 0) shared_.misses[Warp()] = misses;
  }

  // The slots of the ids from `base` of the warp's run; how many are misses.
  __device__ __forceinline__ int32_t MarkPiece(int32_t base) {
    int32_t extent[kTiles], local[kTiles];
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      SPIN_DEVICE_CHECK(of_ids_.Entry(base, k) < 0 || (id_[k] >= 0 && id_[k] <= s_.tail));
    }
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      extent[k] = id_[k] >= 0 ? s_.metas.Extent(id_[k]) : kAbsent;
    }
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      local[k] = id_[k] >= 0 ? t_.meta[s_.metas.Index(extent[k], id_[k])] : kAbsent;
    }
    int32_t misses = 0;
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      if (s_.eviction == Eviction::kNone && id_[k] != s_.tail) local[k] = kAbsent;
      SPIN_DEVICE_CHECK(local[k] < s_.num_slots);
      extent[k] = local[k] >= 0 ? s_.slots.Extent(local[k]) : kAbsent;
      const bool miss = id_[k] >= 0 && local[k] < 0;
      if (miss && id_[k] == s_.tail) {
        (s_.fresh_tail ? shared_.tail_missing : shared_.tail_copied) = 1;
      }
      misses += __popc(__ballot_sync(kAllLanes, miss));
    }
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      at_[k] = kMiss;
      if (local[k] >= 0) {
        at_[k] = static_cast<int32_t>(s_.slots.Index(extent[k], local[k]));
        atomicOr(&selected_slots[local[k] / 32], 1u << local[k] % 32);
      }
      if (id_[k] >= 0) s_.SetEntry(of_ids_.Entry(base, k), of_ids_.Entry(base, k), at_[k]);
    }
    return misses;
  }

  // Step 2, and step 3 but for kBucketed.
  __device__ __forceinline__ void AgeSlots() {
    int32_t free = 0, evicted = 0;
    for (int32_t base = of_slots_.begin; base < of_slots_.end; base += kHeld) {
      if (!of_slots_.fits()) LoadSlots(base);
#pragma unroll
      for (int k = 0; k < kTiles; ++k) {
        AgeSlot(k, of_slots_.Entry(base, k));
        const bool evict = owner_[k] != kAbsent && !Keeps(k);
        if (evict) {
          t_.meta[s_.metas[owner_[k]]] = kAbsent;
          t_.slot_owner[slot_[k]] = owner_[k] = kAbsent;
          age_[k] = 0;
        }
        if (owner_[k] != kAbsent || evict) {
          t_.slot_age[slot_[k]] = static_cast<uint8_t>(age_[k]);
        }
        evicted += __popc(__ballot_sync(kAllLanes, evict));
        free += __popc(__ballot_sync(kAllLanes, slot_[k] >= 0 && owner_[k] == kAbsent));
        CountAge(owner_[k] != kAbsent, age_[k]);
      }
    }
    if (Lane() == 0) {
      shared_.free[Warp()] = free;
      shared_.evicted[Warp()] = evicted;
    }
  }

  __device__ __forceinline__ void AgeSlot(int k, int32_t local) {
    if (owner_[k] == kAbsent) return;
    const bool selected = (selected_slots[local / 32] >> local % 32 & 1) != 0;
    age_[k] = selected ? 0 : min(age_[k] + 1, kMaxAge);
  }
  // From here on: a slot in use has age 0 if and only if its partition is selected (and hit).

  __device__ __forceinline__ bool Keeps(int k) const {
    if (s_.eviction == Eviction::kBucketed) return true;  // for now
    return s_.eviction == Eviction::kNone ? owner_[k] == s_.tail : age_[k] == 0;
  }

  // Ages cluster: one lane adds for all of its age.
  __device__ __forceinline__ void CountAge(bool in_use, int32_t age) {
    if (s_.eviction != Eviction::kBucketed) return;
    const unsigned peers = __match_any_sync(kAllLanes, in_use ? age : kNoAge);
    if (in_use && Lane() == __ffs(peers) - 1) shared_.histogram[Warp()][age] += __popc(peers);
    __syncwarp();
  }

  // Sums what the warps counted; each warp for itself.
  __device__ __forceinline__ void Total() {
    const bool counts = Lane() < kWarps, before = Lane() < Warp();
    const int32_t misses = counts ? shared_.misses[Lane()] : 0;
    const int32_t free = counts ? shared_.free[Lane()] : 0;
    misses_ = __reduce_add_sync(kAllLanes, misses);
    misses_before_ = __reduce_add_sync(kAllLanes, before ? misses : 0);
    free_before_ = __reduce_add_sync(kAllLanes, before ? free : 0);
    evictions_ = __reduce_add_sync(kAllLanes, counts ? shared_.evicted[Lane()] : 0);
    copies_ = misses_ - shared_.tail_missing;
    const int32_t need = misses_ - __reduce_add_sync(kAllLanes, free);
    if (need > 0) {
      SPIN_DEVICE_CHECK(s_.eviction == Eviction::kBucketed);
      evictions_ = need;
      FindThreshold(need);
    }
  }

  // Step 3 of kBucketed: all slots older than threshold_ go, and of that age the first at_threshold_.
  __device__ __forceinline__ void FindThreshold(int32_t need) {
    const int32_t even_age = 2 * Lane(), odd_age = even_age + 1;
    int32_t even = 0, odd = 0;                // slots of those ages
    int32_t even_before = 0, odd_before = 0;  // in lower warps
    for (int w = 0; w < kWarps; ++w) {
      const int2 of_warp = reinterpret_cast<const int2*>(shared_.histogram[w])[Lane()];
      even += of_warp.x;
      odd += of_warp.y;
      even_before += w < Warp() ? of_warp.x : 0;
      odd_before += w < Warp() ? of_warp.y : 0;
    }
    int32_t from_even = even + odd;  // slots of even_age and older
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int32_t above = __shfl_down_sync(kAllLanes, from_even, offset);
      if (Lane() + offset < kWarp) from_even += above;
    }
    const int32_t from_odd = from_even - even;
    const int32_t older = from_odd - odd;
    const bool is_odd = older < need && need <= from_odd;
    const bool is_even = from_odd < need && need <= from_even;
    const unsigned found = __ballot_sync(kAllLanes, is_odd || is_even);
    SPIN_DEVICE_CHECK(found != 0);
    const int lane = __ffs(found) - 1;
    threshold_ = __shfl_sync(kAllLanes, is_odd ? odd_age : even_age, lane);
    at_threshold_ = __shfl_sync(kAllLanes, need - (is_odd ? older : from_odd), lane);
    SPIN_DEVICE_CHECK(threshold_ > 0);
    ties_before_ = __shfl_sync(kAllLanes, is_odd ? odd_before : even_before, lane);
    const int32_t older_before =
        (even_age > threshold_ ? even_before : 0) + (odd_age > threshold_ ? odd_before : 0);
    free_before_ += __reduce_add_sync(kAllLanes, older_before) + min(at_threshold_, ties_before_);
  }

  // Evicts by threshold. The r-th free slot is left in copy_dst[r], or as the slot of the fresh tail, which is the last
  // of all misses.
  __device__ __forceinline__ void FreeSlots() {
    int32_t rank = free_before_, ties = ties_before_;
    for (int32_t base = of_slots_.begin; base < of_slots_.end; base += kHeld) {
      if (!of_slots_.fits()) LoadSlots(base);
#pragma unroll
      for (int k = 0; k < kTiles; ++k) {
        const bool in_use = owner_[k] != kAbsent;
        const bool tie = in_use && age_[k] == threshold_;
        const unsigned all_ties = __ballot_sync(kAllLanes, tie);
        const bool evict = in_use && (age_[k] > threshold_ ||
                                      (tie && ties + CountBelow(all_ties) < at_threshold_));
        ties += __popc(all_ties);
        if (evict) t_.meta[s_.metas[owner_[k]]] = kAbsent;
        const bool free = slot_[k] >= 0 && (!in_use || evict);
        const unsigned all_free = __ballot_sync(kAllLanes, free);
        const int32_t own_rank = rank + CountBelow(all_free);
        rank += __popc(all_free);
        if (!free || own_rank >= misses_) continue;
        const int32_t local = of_slots_.Entry(base, k);
        int32_t& to = own_rank < copies_ ? s_.copy_dst[own_rank] : shared_.tail_slot;
        to = local;
      }
    }
  }

  // Steps 4 and 5.
  __device__ __forceinline__ void PlaceMisses() {
    int32_t rank = misses_before_;
    for (int32_t base = of_ids_.begin; base < of_ids_.end; base += kHeld) {
#pragma unroll
      for (int k = 0; k < kTiles; ++k) {
        const int32_t i = of_ids_.Entry(base, k);
        if (!of_ids_.fits()) {
          id_[k] = i >= 0 ? s_.Id(i) : kAbsent;
          at_[k] = i >= 0 ? Resident(id_[k]) : kAbsent;
        }
        const bool miss = id_[k] >= 0 && at_[k] == kMiss;
        const unsigned all = __ballot_sync(kAllLanes, miss);
        const int32_t own_rank = rank + CountBelow(all);  // misses before i
        rank += __popc(all);
        if (miss) {
          Place(s_.ready_tokens == nullptr ? i : PlaceBehindHits(own_rank), i, id_[k], own_rank);
        } else if (i >= 0 && s_.ready_tokens != nullptr) {
          s_.SetEntry(i - own_rank, i, at_[k]);
        }
      }
    }
  }

  // Index in the pool of slots, or kMiss. Once the victims are gone meta entries say just that; a miss's, until its own
  // thread has placed it. Not read from the list: others may be closing it up.
  __device__ __forceinline__ int32_t Resident(int32_t id) const {
    const int32_t local = t_.meta[s_.metas[id]];
    return local >= 0 ? static_cast<int32_t>(s_.slots[local]) : kMiss;
  }

  // Where in the list a miss of this rank goes. A fresh tail, the last of them, is the last of what is ready.
  __device__ __forceinline__ int32_t PlaceBehindHits(int32_t rank) const {
    const int32_t ready = s_.count - copies_;
    return rank < copies_ ? ready + rank : ready - 1;
  }

  // The miss `id`, which is the i-th id, becomes entry `at` of the list.
  __device__ __forceinline__ void Place(int32_t at, int32_t i, int32_t id, int32_t rank) {
    const int32_t page_extent = s_.pages.Extent(id);  // read before anything is written
    const int32_t meta_extent = s_.metas.Extent(id);
    const int32_t local = rank < copies_ ? s_.copy_dst[rank] : shared_.tail_slot;
    const auto slot = static_cast<int32_t>(s_.slots[local]);
    t_.slot_owner[slot] = id;
    t_.slot_age[slot] = 0;
    t_.meta[s_.metas.Index(meta_extent, id)] = local;
    s_.SetEntry(at, i, slot);
    if (rank >= copies_) return;
    s_.copy_src[rank] = s_.pages.Index(page_extent, id);
    s_.copy_dst[rank] = slot;
  }

  __device__ __forceinline__ void Report(RetrieveCounters* counters) const {
    *s_.copy_len = copies_;
    s_.ReportReady(s_.count - copies_, shared_.tail_copied == 0);
    const int32_t uncounted = s_.fresh_tail && shared_.tail_missing == 0 ? 1 : 0;
    Add(&counters->hits, s_.count - misses_ - uncounted);
    Add(&counters->misses, copies_);
    Add(&counters->evictions, evictions_);
  }
  static __device__ void Add(uint64_t* counter, int32_t value) {
    if (value == 0) return;
    atomicAdd(reinterpret_cast<unsigned long long*>(counter),
              static_cast<unsigned long long>(value));
  }

  const LookupStream& s_;
  const KvTables& t_;
  Shared& shared_;
  const WarpRun of_ids_, of_slots_;
  int32_t id_[kTiles], at_[kTiles];  // selected, and its index in the pool of slots or kMiss
  int32_t slot_[kTiles], owner_[kTiles], age_[kTiles];
  int32_t misses_, misses_before_;  // of the stream, and in lower warps; a fresh tail's included
  int32_t copies_;                  // misses but for a fresh tail
  int32_t evictions_;
  int32_t free_before_;  // slots in lower warps that are free once the victims are gone
  int32_t threshold_ = kNoAge, at_threshold_ = 0, ties_before_ = 0;
};

// A Resident row: page p is slot p.
__device__ __forceinline__ void Translate(const LookupStream& s) {
  for (auto base = static_cast<int32_t>(threadIdx.x); base < s.count; base += kTiles * kThreads) {
    int32_t id[kTiles], extent[kTiles];
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      const int32_t i = base + k * kThreads;
      id[k] = i < s.count ? s.Id(i) : 0;
    }
#pragma unroll
    for (int k = 0; k < kTiles; ++k) extent[k] = s.slots.Extent(id[k]);
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      const int32_t i = base + k * kThreads;
      if (i < s.count) s.SetEntry(i, i, static_cast<int32_t>(s.slots.Index(extent[k], id[k])));
    }
  }
  if (threadIdx.x == 0) {
    *s.copy_len = 0;
    s.ReportReady(s.count, true);
  }
}

// A few megabytes of tables in all, so what counts is the chain of dependent reads: row, position, ids, directory,
// meta, slot. Whatever does not depend on one another is in flight together; three barriers.
__global__ void __launch_bounds__(kThreads, 2) LookupKernel(const LookupParams p) {
  __shared__ Shared shared;
  const int words = CeilDiv(p.tables.geometry.max_pages(), 32);
  for (int i = threadIdx.x; i < words; i += kThreads) selected_slots[i] = 0;
  for (int i = threadIdx.x; i < kWarps * kAges; i += kThreads)
    shared.histogram[i / kAges][i % kAges] = 0;
  if (threadIdx.x == 0) shared.tail_missing = shared.tail_copied = 0;
  WaitForPredecessors();
  AllowSuccessors();
  const auto head = static_cast<int32_t>(blockIdx.x);
  const auto place = static_cast<int32_t>(blockIdx.y);
  const int32_t row = LoadNow(p.decode.rows + place);
  if (place >= NumRows(p.decode)) return;
  const LookupStream stream(p, place, row, head);
  if (threadIdx.x == 0) *stream.list_len = stream.count;
  if (!stream.tiered) {
    Translate(stream);
    return;
  }
  __syncthreads();  // shared memory is clear
  TieredLookup(stream, shared).Run(p.counters + row);
}

}  // namespace

void Lookup(const LookupParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK((g.extent_pages() & (g.extent_pages() - 1)) == 0);
  SPIN_CHECK(p.page_mask == nullptr || (p.ids != nullptr && p.list_mask != nullptr));
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(g.num_kv_heads), static_cast<unsigned>(p.decode.max_batch));
  const auto shared_bytes = static_cast<size_t>(CeilDiv(g.max_pages(), 32)) * sizeof(uint32_t);
  Launch(LookupKernel, grid, dim3(kThreads), shared_bytes, stream, p);
}

}  // namespace spin::cuda
