// Sizes of batches and tiles, where each new one costs: a device that captures steps has a captured step of each size
// of a batch, and times the products of a size before it captures them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device.h"

namespace spin {

// The least size for a batch of `n` that steps are captured for: powers of two, then multiples of 8.
int32_t BatchBucket(int32_t n, int32_t max_batch);

// Places of a batch of `n` on the device.
int32_t PlacesOf(const DeviceInfo& device, int32_t n, int32_t max_batch);

// ---- What is met at start, so that no request meets it first.

// Buckets, ascending. Larger ones, of servers for more than 256 sequences at once, are captured when they come: there
// are hundreds of them, each captured step holds device memory, and their products are not timed.
std::vector<int32_t> WarmBatches(int32_t max_batch);
// Tokens of a prefill tile, ascending: the full tile, and the ends of prompts by the thousand; two small ones stand for
// all that are shorter.
std::vector<int32_t> WarmTiles(int32_t tile_tokens);

}  // namespace spin
