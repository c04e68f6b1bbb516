// The pages of a batch's streams (batch place, KV head) in steps that a CTA takes at once, numbered through place by
// place, head by head: one wave of CTAs shares them evenly, whatever the lengths.
#pragma once

#include <cstdint>

#include "common/math.h"
#include "kernels/cuda/flat_work.cuh"
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

  // The first step of CTA `block`'s share; shares differ by one at most. A division of 64 bits is long.
  static __device__ int32_t FirstOf(uint32_t block, int32_t steps) {
    const uint32_t share = static_cast<uint32_t>(steps) / gridDim.x;
    const uint32_t rest = static_cast<uint32_t>(steps) % gridDim.x;
    return static_cast<int32_t>(block * share + min(block, rest));
  }

  // A step's place among all.
  struct Position {
    __device__ Position(const StreamSteps& steps_of, int32_t index) {
      const int32_t item = steps_of.work_.Find(index);
      place = steps_of.first_place_ + item;
      row = steps_of.row_[item];
      pages = steps_of.pages_[item];
      steps = CeilDiv(pages, kStepPages);
      const int32_t in_place = index - steps_of.work_.First(item);
      head = in_place / steps;
      step = in_place % steps;
    }

    int32_t place, row, head;
    int32_t pages, steps;  // of the stream
    int32_t step;
  };

 private:
  Work work_;
  int32_t first_place_;
  int32_t row_[kPlaces];    // of each place
  int32_t pages_[kPlaces];  // of its streams
};

}  // namespace spin::cuda
