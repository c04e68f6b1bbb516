#include "kernels/host_memory_use.h"

#include "common/units.h"

namespace spin {

absl::Status HostMemoryUse::Take(int64_t bytes) {
  const int64_t before = taken_bytes_.fetch_add(bytes);
  if (bytes <= limit_bytes_ - before) return absl::OkStatus();
  taken_bytes_.fetch_sub(bytes);
  return ResourceExhausted("cannot allocate %s: %s of the %s that the process may use are taken",
                           FormatBytes(bytes), FormatBytes(before), FormatBytes(limit_bytes_));
}

}  // namespace spin
