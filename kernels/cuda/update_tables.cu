// Changes of the tables between steps, as if applied one by one in the order of the list.
//
// Two kinds of commands never meet: those that move extents (or clear histories) name them by id and touch pools alone,
// all others touch tables alone. So the former go to the copy engines, in their order, and the latter are one launch,
// in theirs, however the list mixes them (the demotion of one row: thousands of either kind, taking turns).
//
// That launch is one block, since a command may depend on any before it; table_writer.cuh says how it takes many at
// once.
//
// An admission of 32K tokens to Qwen3-8B: 7,000 to 10,000 commands, 200 KB over the link (4 us, fetched a window ahead)
// and at pages of 16 tokens 2.9 MB of fills, for which one multiprocessor's stores take some 40 us. With 1-2 us a
// window for the barriers about 60 us.
#include <algorithm>
#include <cstdlib>

#include "common/check.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/table_writer.cuh"

namespace spin::cuda {
namespace {

constexpr int kMarkThreads = 256;

__global__ void __launch_bounds__(kWindow)
    ApplyCommands(const TableCommand* commands, int32_t num_commands,
                  const __grid_constant__ KvTables tables) {
  __shared__ TableWindow window;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  // Words of the window at `begin`, as they lie: whole lines over the link.
  const auto* words = reinterpret_cast<const int32_t*>(commands);
  int32_t ahead[kCommandWords];
  const auto fetch = [&](int32_t begin) {
#pragma unroll
    for (int k = 0; k < kCommandWords; ++k) {
      const int64_t i = int64_t{begin} * kCommandWords + k * kWindow + thread;
      ahead[k] = i < int64_t{num_commands} * kCommandWords ? words[i] : 0;
    }
  };
  fetch(0);  // the list is the host's: no kernel before this one writes it
  WaitForPredecessors();
  AllowSuccessors();
  TableWriter writer(tables, window);
  for (int32_t begin = 0; begin < num_commands; begin += kWindow) {
#pragma unroll
    for (int k = 0; k < kCommandWords; ++k) window.words[k * kWindow + thread] = ahead[k];
    fetch(begin + kWindow);
    __syncthreads();
    writer.ApplyWindow(min(num_commands - begin, kWindow));  // ends with a barrier
  }
}

__global__ void __launch_bounds__(kMarkThreads)
    MarkTokens(const __grid_constant__ MarkPromptParams p) {
  const int32_t i = static_cast<int32_t>(blockIdx.x) * kMarkThreads + threadIdx.x;
  WaitForPredecessors();
  AllowSuccessors();
  if (i >= p.n) return;
  const int32_t id = p.ids[i];
  SPIN_DEVICE_CHECK(id >= 0 && id < p.vocab);
  uint32_t* entry = p.history + int64_t{p.row} * p.vocab + id;
  if (p.generated) {
    atomicAdd(entry, 1u);
  } else {
    atomicOr(entry, uint32_t{1} << 31);
  }
}

// Copies of extents, in order; neighbours in both pools that follow each other in the list become one.
class ExtentCopies {
 public:
  explicit ExtentCopies(cudaStream_t stream) : stream_(stream) {}

  void Add(void* to, int32_t to_extent, const void* from, int32_t from_extent, int64_t bytes) {
    SPIN_CHECK(to_extent >= 0 && from_extent >= 0);
    if (to == from && to_extent == from_extent) return;
    if (to == to_ && from == from_ && Extend(to_extent, from_extent)) return;
    Flush();
    to_ = to;
    from_ = from;
    to_extent_ = to_extent;
    from_extent_ = from_extent;
    extents_ = 1;
    bytes_ = bytes;
  }

  void Flush() {
    if (extents_ == 0) return;
    SPIN_CUDA_CHECK(cudaMemcpyAsync(static_cast<char*>(to_) + to_extent_ * bytes_,
                                    static_cast<const char*>(from_) + from_extent_ * bytes_,
                                    static_cast<size_t>(extents_ * bytes_), cudaMemcpyDefault,
                                    stream_));
    extents_ = 0;
  }

 private:
  // One extent more at either end (free lists are handed out in either direction). Source and destination may not
  // meet: within one pool a copy must not read what the one before it wrote.
  bool Extend(int32_t to_extent, int32_t from_extent) {
    if (extents_ == 0) return false;
    if (to_ == from_ && std::abs(to_extent - from_extent) <= extents_) return false;
    const bool above = to_extent == to_extent_ + extents_ && from_extent == from_extent_ + extents_;
    const bool below = to_extent + 1 == to_extent_ && from_extent + 1 == from_extent_;
    if (!above && !below) return false;
    to_extent_ = std::min(to_extent_, to_extent);
    from_extent_ = std::min(from_extent_, from_extent);
    ++extents_;
    return true;
  }

  cudaStream_t stream_;
  void* to_ = nullptr;
  const void* from_ = nullptr;
  int32_t to_extent_ = 0, from_extent_ = 0;  // first of the pending copy
  int32_t extents_ = 0;
  int64_t bytes_ = 0;  // an extent
};

void CheckCommand(const KvGeometry& g, const TableCommand& c) {
  SPIN_CHECK(c.row >= 0 && c.row < g.max_rows && c.layer >= 0 && c.layer < g.num_layers);
  switch (c.kind) {
    case kSetSlotExtent:
    case kSetHostExtent:
    case kSetSummaryExtent:
    case kSetMetaSegment:
    case kShareSlotExtent:
      SPIN_CHECK(c.index >= 0 && c.index < g.max_extents);
      SPIN_CHECK_GE(c.value, kAbsent);
      return;
    case kSetNumSlots:
      SPIN_CHECK_GE(c.value, 0);
      return;
    default:
      return;
  }
}

}  // namespace

void UpdateTables(const UpdateTablesParams& p, cudaStream_t stream) {
  const KvTables& t = p.tables;
  const int64_t extent_bytes = t.geometry.extent_bytes();
  ExtentCopies copies(stream);
  bool changes_tables = false;
  for (int32_t i = 0; i < p.num_commands; ++i) {
    const TableCommand& c = p.commands[i];
    CheckCommand(t.geometry, c);
    switch (c.kind) {
      case kCopySlotExtent:
        copies.Add(t.slots, c.index, t.slots, c.value, extent_bytes);
        break;
      case kCopyHostExtent:
        copies.Add(t.host_pages, c.index, t.host_pages, c.value, extent_bytes);
        break;
      case kCopySummaryExtent:
        copies.Add(t.summaries, c.index, t.summaries, c.value, t.geometry.summary_extent_bytes());
        break;
      case kCopyKeyBasis:
        copies.Add(t.key_basis, c.index, t.key_basis, c.value, t.geometry.key_basis_bytes());
        break;
      case kSpillExtent:
        copies.Add(t.host_pages, c.index, t.slots, c.value, extent_bytes);
        break;
      case kClearHistory:
        SPIN_CHECK(p.history != nullptr);
        SPIN_CUDA_CHECK(cudaMemsetAsync(p.history + int64_t{c.row} * p.vocab, 0,
                                        static_cast<size_t>(p.vocab) * sizeof(uint32_t), stream));
        break;
      default:
        changes_tables = true;
    }
  }
  copies.Flush();
  if (changes_tables) Launch(ApplyCommands, 1, kWindow, 0, stream, p.commands, p.num_commands, t);
}

void MarkPrompt(const MarkPromptParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  Launch(MarkTokens, (p.n + kMarkThreads - 1) / kMarkThreads, kMarkThreads, 0, stream, p);
}

}  // namespace spin::cuda
