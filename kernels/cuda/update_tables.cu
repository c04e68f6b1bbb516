// Changes of the tables between steps, in the order of the list.
//
// The host cuts the list. Copies of whole extents and clearing a history are bulk work for the copy engines; everything
// between two of them is a run, and one launch. A run of 10,000 commands (a 32K-token sequence is admitted) is
// walked by one block in windows: a directory entry belongs to one thread, by a hash of its place, and each thread
// walks the window in order and writes the entries that are its own. So two commands for one entry keep their order,
// and all others run at once. Fills of granted extents follow, a warp a command; a window ends before a command that
// reads what others of the window write (kSetNumSlots, kBindSlots), so fills never meet those. Two fills of one
// extent in a window write the same values.
#include <algorithm>

#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"

namespace spin::cuda {
namespace {

using enum TableCommandKind;

constexpr int kThreads = 256;
constexpr int kWindow = 512;  // commands in shared memory at a time

struct Window {
  TableCommand commands[kWindow];
  uint16_t owner[kWindow];  // thread that writes the command's entry
};

__host__ __device__ constexpr bool ReadsTables(TableCommandKind kind) {
  return kind == kSetNumSlots || kind == kBindSlots;
}

__device__ uint16_t OwnerOf(const TableCommand& c) {
  uint32_t hash = static_cast<uint32_t>(c.kind == kShareSlotExtent ? kSetSlotExtent : c.kind);
  const bool whole_row = c.kind == kSetPlacement;  // one entry, whatever layer and index say
  for (const int32_t part : {c.row, whole_row ? 0 : c.layer, whole_row ? 0 : c.index}) {
    hash = (hash ^ static_cast<uint32_t>(part)) * 0x9E3779B1u;
    hash ^= hash >> 15;
  }
  return static_cast<uint16_t>(hash % kThreads);
}

// The entry that a plain command writes; null for those that are not plain.
__device__ int32_t* EntryOf(const KvTables& t, const TableCommand& c) {
  const int64_t at = t.geometry.DirIndex(c.row, c.layer, c.index);
  switch (c.kind) {
    case kSetPlacement:
      return t.placement + c.row;
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

// Owners, ages or entries of a granted extent become absent.
__device__ void FillExtent(const KvTables& t, const TableCommand& c, int lane) {
  if (c.value == kAbsent || (c.kind != kSetSlotExtent && c.kind != kSetMetaSegment)) return;
  const int32_t pages = t.geometry.pages_per_extent();
  const int64_t first = t.geometry.PageIndex(c.value, 0, 0);
  for (int32_t i = lane; i < pages; i += kWarp) {
    if (c.kind == kSetSlotExtent) {
      t.slot_owner[first + i] = kAbsent;
      t.slot_age[first + i] = 0;
    } else {
      t.meta[first + i] = kAbsent;
    }
  }
}

// Entry i of a head in a pool that `directory` maps, or null where nothing is mapped.
template <typename T>
__device__ T* Find(const KvGeometry& g, T* pool, const int32_t* directory, const TableCommand& c,
                   int32_t head, int32_t i) {
  const int32_t e = i / g.extent_pages();
  if (e >= g.max_extents) return nullptr;
  const int32_t extent = directory[g.DirIndex(c.row, c.layer, e)];
  if (extent == kAbsent) return nullptr;
  return pool + g.PageIndex(extent, head, i % g.extent_pages());
}

// A smaller budget frees the slots at the end, so that no meta entry names a slot that is gone.
__device__ void SetNumSlots(const KvTables& t, const TableCommand& c) {
  const KvGeometry& g = t.geometry;
  int32_t* num_slots = t.num_slots + int64_t{c.row} * g.num_layers + c.layer;
  const int32_t before = *num_slots;
  __syncthreads();
  if (threadIdx.x == 0) *num_slots = c.value;
  if (t.placement[c.row] != static_cast<int32_t>(Placement::kTiered)) return;
  const int32_t freed = before - c.value;
  for (int32_t i = threadIdx.x; i < freed * g.num_kv_heads; i += kThreads) {
    const int32_t head = i / freed;
    const int32_t j = c.value + i % freed;
    int32_t* owner = Find(g, t.slot_owner, t.slot_dir, c, head, j);
    if (owner == nullptr || *owner == kAbsent) continue;
    if (int32_t* meta = Find(g, t.meta, t.meta_dir, c, head, *owner)) *meta = kAbsent;
    *owner = kAbsent;
    *Find(g, t.slot_age, t.slot_dir, c, head, j) = 0;
  }
}

__device__ void BindSlots(const KvTables& t, const TableCommand& c) {
  const KvGeometry& g = t.geometry;
  const int32_t num_slots = t.num_slots[int64_t{c.row} * g.num_layers + c.layer];
  const int32_t bound = min(num_slots, c.value - c.index);
  for (int32_t i = threadIdx.x; i < bound * g.num_kv_heads; i += kThreads) {
    const int32_t head = i / bound;
    const int32_t j = i % bound;
    int32_t* owner = Find(g, t.slot_owner, t.slot_dir, c, head, j);
    int32_t* meta = Find(g, t.meta, t.meta_dir, c, head, c.index + j);
    SPIN_DEVICE_CHECK(owner != nullptr && meta != nullptr);
    *owner = c.index + j;
    *meta = j;
    *Find(g, t.slot_age, t.slot_dir, c, head, j) = 0;
  }
}

// Commands [begin, end) of the window, none of which reads tables.
__device__ void ApplyPlain(const KvTables& t, const Window& window, int32_t begin, int32_t end) {
  for (int32_t i = begin; i < end; ++i) {
    if (window.owner[i] == threadIdx.x) *EntryOf(t, window.commands[i]) = window.commands[i].value;
  }
  __syncthreads();
  for (int32_t i = begin + static_cast<int32_t>(threadIdx.x / kWarp); i < end;
       i += kThreads / kWarp) {
    FillExtent(t, window.commands[i], threadIdx.x % kWarp);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    ApplyRun(const TableCommand* commands, int32_t count, const __grid_constant__ KvTables tables) {
  __shared__ Window window;
  WaitForPredecessors();
  for (int32_t at = 0; at < count; at += kWindow) {
    const int32_t n = min(kWindow, count - at);
    for (int32_t i = threadIdx.x; i < n; i += kThreads) {
      window.commands[i] = commands[at + i];
      window.owner[i] = OwnerOf(window.commands[i]);
    }
    __syncthreads();
    for (int32_t begin = 0; begin < n;) {
      int32_t end = begin;
      while (end < n && !ReadsTables(window.commands[end].kind)) ++end;
      if (end > begin) ApplyPlain(tables, window, begin, end);
      for (; end < n && ReadsTables(window.commands[end].kind); ++end) {
        const TableCommand& c = window.commands[end];
        c.kind == kSetNumSlots ? SetNumSlots(tables, c) : BindSlots(tables, c);
        __syncthreads();
      }
      begin = end;
    }
  }
}

__global__ void __launch_bounds__(kThreads) MarkKernel(MarkPromptParams p) {
  WaitForPredecessors();
  const int32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= p.n) return;
  SPIN_DEVICE_CHECK(p.ids[i] >= 0 && p.ids[i] < p.vocab);
  uint32_t* entry = p.history + int64_t{p.row} * p.vocab + p.ids[i];
  if (p.generated) {
    atomicAdd(entry, 1u);
  } else {
    atomicOr(entry, 1u << 31);
  }
}

void CopyExtent(void* to, int32_t to_extent, const void* from, int32_t from_extent, int64_t bytes,
                cudaStream_t stream) {
  SPIN_CHECK(to_extent >= 0 && from_extent >= 0);
  char* dst = static_cast<char*>(to) + to_extent * bytes;
  const char* src = static_cast<const char*>(from) + from_extent * bytes;
  if (dst == src) return;
  SPIN_CUDA_CHECK(cudaMemcpyAsync(dst, src, static_cast<size_t>(bytes), cudaMemcpyDefault, stream));
}

// Bulk work of one command; false where the command belongs into a run.
bool ApplyBulk(const UpdateTablesParams& p, const TableCommand& c, cudaStream_t stream) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  switch (c.kind) {
    case kCopySlotExtent:
      CopyExtent(t.slots, c.index, t.slots, c.value, g.extent_bytes(), stream);
      return true;
    case kCopyHostExtent:
      CopyExtent(t.host_pages, c.index, t.host_pages, c.value, g.extent_bytes(), stream);
      return true;
    case kCopySummaryExtent:
      CopyExtent(t.summaries, c.index, t.summaries, c.value, g.summary_extent_bytes(), stream);
      return true;
    case kSpillExtent:
      CopyExtent(t.host_pages, c.index, t.slots, c.value, g.extent_bytes(), stream);
      return true;
    case kClearHistory:
      SPIN_CHECK(p.history != nullptr);
      SPIN_CUDA_CHECK(cudaMemsetAsync(p.history + int64_t{c.row} * p.vocab, 0,
                                      static_cast<size_t>(p.vocab) * sizeof(uint32_t), stream));
      return true;
    default:
      return false;
  }
}

void CheckCommand(const KvGeometry& g, const TableCommand& c) {
  SPIN_CHECK(c.row >= 0 && c.row < g.max_rows && c.layer >= 0 && c.layer < g.num_layers);
  const bool entry = c.kind == kSetSlotExtent || c.kind == kShareSlotExtent ||
                     c.kind == kSetHostExtent || c.kind == kSetSummaryExtent ||
                     c.kind == kSetMetaSegment;
  if (entry) SPIN_CHECK(c.index >= 0 && c.index < g.max_extents && c.value >= kAbsent);
  if (c.kind == kSetNumSlots) SPIN_CHECK_GE(c.value, 0);
}

}  // namespace

void UpdateTables(const UpdateTablesParams& p, cudaStream_t stream) {
  int32_t begin = 0;  // of the run that is being gathered
  const auto launch_run = [&](int32_t end) {
    if (end > begin)
      Launch(ApplyRun, 1, kThreads, 0, stream, p.commands + begin, end - begin, p.tables);
    begin = end + 1;
  };
  for (int32_t i = 0; i < p.num_commands; ++i) {
    CheckCommand(p.tables.geometry, p.commands[i]);
    const TableCommandKind kind = p.commands[i].kind;
    const bool bulk = kind == kCopySlotExtent || kind == kCopyHostExtent ||
                      kind == kCopySummaryExtent || kind == kSpillExtent || kind == kClearHistory;
    if (!bulk) continue;
    launch_run(i);
    SPIN_CHECK(ApplyBulk(p, p.commands[i], stream));
  }
  launch_run(p.num_commands);
}

void MarkPrompt(const MarkPromptParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  Launch(MarkKernel, static_cast<unsigned>((p.n + kThreads - 1) / kThreads), kThreads, 0, stream,
         p);
}

}  // namespace spin::cuda
