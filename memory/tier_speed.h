// How fast this machine moves KV between and within its tiers: measured once at start, in the pools themselves.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "memory/kv_store.h"

namespace spin {

// Bytes a second, 0 where it was not measured: without a host tier all but hbm_copy, in pools of less than
// 2 MiB everything.
struct TierSpeed {
  struct Gather {
    int64_t page_bytes = 0;
    double rate = 0;
  };

  double hbm_copy = 0;  // within HBM, bytes read plus bytes written
  double host_to_device = 0;
  double device_to_host = 0;
  std::vector<Gather>
      gathers;  // Ops::GatherPages of pages of 2 to 32 KiB that lie scattered on the host

  std::string ToText() const;  // two lines for people
};

// Waits for its work; takes a fraction of a second. Overwrites pages of both pools, leaves tables and states alone,
// allocates nothing on the device. REQUIRES: no sequence holds memory.
TierSpeed MeasureTierSpeed(const KvStore& store, Device& device, Ops& ops, Stream& stream);

}  // namespace spin
