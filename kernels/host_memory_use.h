// Host memory that a device has handed out, against what the process may use: who takes more is refused, instead of
// killed by the system when the pages are touched.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/status.h"

namespace spin {

// Any thread.
class HostMemoryUse {
 public:
  explicit HostMemoryUse(int64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // ResourceExhausted with the sizes; nothing is taken then.
  absl::Status Take(int64_t bytes);
  void Give(int64_t bytes) noexcept { taken_bytes_.fetch_sub(bytes); }

 private:
  const int64_t limit_bytes_;
  std::atomic<int64_t> taken_bytes_{0};
};

}  // namespace spin
