// Seeded random traces, with the kind of locality that a cache sees: most pages stay, some return.
#pragma once

#include <algorithm>
#include <set>
#include <vector>

#include "common/random.h"
#include "tools/trace/selection_trace.h"

namespace spin::trace {

// Selections of header.budget_pages pages where the sequence has so many: page 0 and the tail, of the rest seven of
// eight from the step before.
inline SelectionTrace RandomTrace(const TraceHeader& header, uint64_t seed) {
  SelectionTrace trace(header);
  Random random(seed);
  for (int32_t layer = 0; layer < header.num_layers; ++layer) {
    for (int32_t head = 0; head < header.num_kv_heads; ++head) {
      std::vector<int32_t> ids;
      for (int32_t step = 0; step < header.num_steps; ++step) {
        const int32_t tail = header.Tail(step);
        const auto most = static_cast<size_t>(std::min(header.budget_pages, tail + 1));
        std::set<int32_t> chosen = {0, tail};
        for (const int32_t id : ids) {
          if (chosen.size() < most && random.Below(8) != 0) chosen.insert(id);
        }
        while (chosen.size() < most) {
          chosen.insert(static_cast<int32_t>(random.Below(static_cast<uint32_t>(tail))));
        }
        ids.assign(chosen.begin(), chosen.end());
        trace.Append(layer, head, ids);
      }
    }
  }
  return trace;
}

}  // namespace spin::trace
