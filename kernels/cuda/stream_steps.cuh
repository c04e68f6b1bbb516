// The pages of a batch's streams (batch place, KV head) in steps that a CTA takes at once, numbered through place by
// place, head by head: one wave of CTAs shares them evenly, whatever the lengths.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/math.h"
#include "kernels/cuda/flat_work.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {

// In shared memory; one a CTA of kThreads.
template <int kThreads, int kStepPages>
class StreamSteps {
 public:
  using Work = FlatWork<kThreads, 1>;
  static constexpr int32_t kPlaces = Work::kItems;  // of one numbering; more take turns

  // Numbers the steps of places first_place.. and says how many there are; pages(position), below 1 for none, are those
  // of each stream of a row at that position. All threads together.
  template <typename Pages>
  __device__ __forceinline__ int32_t Number(const DecodeRows& decode, const KvGeometry& g,
                                            int32_t first_place, Pages pages) {
    if (threadIdx.x == 0) first_place_ = first_place;
    const int32_t places = min(decode.max_batch - first_place, kPlaces);
    return work_.Build(places, [&](int32_t i) {
      const int32_t row = LoadNow(decode.rows + first_place + i);
      if (first_place + i >= NumRows(decode)) return 0;
      const int32_t count = pages(decode.position[row]);
      SPIN_DEVICE_CHECK(count <= g.max_pages());
      row_[i] = row;
      pages_[i] = count;
      return CeilDiv(max(count, 0), kStepPages) * g.num_kv_heads;
    });
  }

  // Steps of one stream that a CTA takes without a break, as pages.
  struct Part {
    int32_t place, row, head;
    int32_t pages;       // of the stream
    int32_t begin, end;  // of the part: from a multiple of kStepPages on, to `pages` at most
  };

  // The CTA's share of the numbered steps, a part of a stream after the other; shares differ by one step at most.
  class Share {
   public:
    __device__ Share(const StreamSteps& of, int32_t steps)
        : of_(of), next_(FirstOf(blockIdx.x, steps)), end_(FirstOf(blockIdx.x + 1, steps)) {}

    __device__ bool done() const { return next_ >= end_; }
    // REQUIRES: not done.
    __device__ __forceinline__ Part Next() {
      const int32_t item = of_.work_.Find(next_);
      Part part;
      part.place = of_.first_place_ + item;
      part.row = of_.row_[item];
      part.pages = of_.pages_[item];
      const int32_t steps = CeilDiv(part.pages, kStepPages);
      const int32_t in_place = next_ - of_.work_.First(item);
      part.head = in_place / steps;
      const int32_t first = in_place % steps, count = min(steps - first, end_ - next_);
      part.begin = first * kStepPages;
      part.end = min((first + count) * kStepPages, part.pages);
      next_ += count;
      return part;
    }

   private:
    // A division of 64 bits is long.
    static __device__ int32_t FirstOf(uint32_t block, int32_t steps) {
      const uint32_t share = static_cast<uint32_t>(steps) / gridDim.x;
      const uint32_t rest = static_cast<uint32_t>(steps) % gridDim.x;
      return static_cast<int32_t>(block * share + min(block, rest));
    }

    const StreamSteps& of_;
    int32_t next_, end_;  // steps
  };

  // The grid for places first_place..: one wave of `ctas` a multiprocessor, fewer where there cannot be so many steps.
  static dim3 Grid(const DecodeRows& decode, const KvGeometry& g, int32_t first_place, int ctas) {
    const int64_t streams = int64_t{decode.max_batch - first_place} * g.num_kv_heads;
    return dim3(static_cast<unsigned>(std::min<int64_t>(
        int64_t{ctas} * Traits().num_sms, streams * CeilDiv(g.max_pages(), kStepPages))));
  }

 private:
  Work work_;
  int32_t first_place_;
  int32_t row_[kPlaces];    // of each place
  int32_t pages_[kPlaces];  // of its streams
};

}  // namespace spin::cuda
