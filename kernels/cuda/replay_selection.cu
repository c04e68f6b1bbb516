// Recorded selections in place of Select's, for measurements: the twin of kernels/cpu/replay_selection.cc.
//
// One CTA a stream, an id a thread. A few dozen bytes a stream: the time is that of a launch, so that a measured step
// with it stays comparable to one without.
#include "common/check.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) ReplaySelectionKernel(const ReplaySelectionParams p) {
  const KvGeometry& g = p.geometry;
  const auto head = static_cast<int32_t>(blockIdx.x);
  const auto place = static_cast<int32_t>(blockIdx.y);
  WaitForPredecessors();
  AllowSuccessors();
  if (place >= NumRows(p.decode)) return;
  const int32_t row = p.decode.rows[place];
  const int32_t position = p.decode.position[row];
  const int32_t step = (position + p.phase[row]) % p.num_steps;
  const int64_t entry =
      (int64_t{step} * p.num_layers + p.layer % p.num_layers) * p.num_heads + head % p.num_heads;
  const int32_t* recorded = p.recorded + entry * p.max_recorded;
  const int32_t num_recorded = p.recorded_count[entry];
  const int32_t scale = p.pages_per_recorded;
  const int32_t first_of_tail = position / g.page_tokens - scale + 1;
  SPIN_DEVICE_CHECK(num_recorded >= 1 && num_recorded <= p.max_recorded);
  SPIN_DEVICE_CHECK(num_recorded * scale <= p.max_selected && first_of_tail >= 0);
  const int64_t stream = int64_t{place} * g.num_kv_heads + head;
  int32_t* ids = p.ids + stream * p.max_selected;
  const int32_t count = num_recorded * scale;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < count; i += kThreads) {
    const int32_t k = i / scale;
    const bool is_tail = k == num_recorded - 1;
    const int32_t first = is_tail ? first_of_tail : recorded[k] * scale;
    SPIN_DEVICE_CHECK(is_tail || first + scale <= first_of_tail);
    ids[i] = first + i % scale;
  }
  if (threadIdx.x == 0) p.count[stream] = count;
}

}  // namespace

void ReplaySelection(const ReplaySelectionParams& p, cudaStream_t stream) {
  SPIN_CHECK(p.num_steps > 0 && p.num_layers > 0 && p.num_heads > 0 && p.pages_per_recorded > 0);
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(p.geometry.num_kv_heads),
                  static_cast<unsigned>(p.decode.max_batch));
  Launch(ReplaySelectionKernel, grid, dim3(kThreads), 0, stream, p);
}

}  // namespace spin::cuda
