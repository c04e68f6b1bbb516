#include "models/batch_sizes.h"

#include <algorithm>
#include <bit>

#include "common/math.h"

namespace spin {

int32_t BatchBucket(int32_t n, int32_t max_batch) {
  const int32_t bucket =
      n <= 8 ? static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(n))) : RoundUp(n, 8);
  return std::min(bucket, max_batch);
}

int32_t PlacesOf(const DeviceInfo& device, int32_t n, int32_t max_batch) {
  return device.captures_steps ? BatchBucket(n, max_batch) : n;
}

std::vector<int32_t> WarmBatches(int32_t max_batch) {
  constexpr int32_t kMost = 256;
  std::vector<int32_t> sizes;
  for (int32_t n = 1; n <= std::min(max_batch, kMost); n = sizes.back() + 1) {
    sizes.push_back(BatchBucket(n, max_batch));
  }
  return sizes;
}

std::vector<int32_t> WarmTiles(int32_t tile_tokens) {
  constexpr int32_t kStep = 1024;
  std::vector<int32_t> sizes;
  for (const int32_t n : {128, 256}) {
    if (n < tile_tokens) sizes.push_back(n);
  }
  for (int32_t n = kStep; n < tile_tokens; n += kStep) sizes.push_back(n);
  sizes.push_back(tile_tokens);
  return sizes;
}

}  // namespace spin
