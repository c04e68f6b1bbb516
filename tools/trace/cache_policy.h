// Hit ratios of a recorded selection under eviction policies: what a Tiered stream's slots in HBM would have held.
//
// A stream starts as a prefilled Tiered row does, with the last pages of its prompt in its slots; then each step's
// selection must be resident as a whole. Hits and misses count as the server counts them: a page that the step's own
// token opens is neither. The rule of kBucketed, kLastStep and kNone is memory/README.md's, section 8, slot for slot.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tools/trace/selection_trace.h"

namespace spin::trace {

enum class Policy {
  kNone,      // keeps nothing but the tail: every step fetches what it selects
  kLastStep,  // keeps what the step before selected, however many slots there are
  kBucketed,  // the server's: least recently used by ages that saturate at kMaxAge, ties to the lowest slot
  kExactLru,  // the same with ages that do not saturate
  // Evicts what is needed again latest (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM
  // Systems Journal 5(2), 1966). Knows the future: no policy has fewer misses.
  kBelady,
};

struct PolicyName {
  Policy policy;
  std::string_view name;
};
inline constexpr std::array<PolicyName, 5> kPolicies = {{{Policy::kNone, "none"},
                                                         {Policy::kLastStep, "last_step"},
                                                         {Policy::kBucketed, "bucketed"},
                                                         {Policy::kExactLru, "exact_lru"},
                                                         {Policy::kBelady, "belady"}}};

struct HitCounts {
  int64_t hits = 0;
  int64_t misses = 0;

  HitCounts& operator+=(const HitCounts& other) {
    hits += other.hits;
    misses += other.misses;
    return *this;
  }
  double ratio() const {  // 1 where nothing was asked for
    return hits + misses == 0 ? 1 : static_cast<double>(hits) / static_cast<double>(hits + misses);
  }
  friend bool operator==(const HitCounts&, const HitCounts&) = default;
};

// Slots of a stream at `ratio` times its selection: fixed + ceil(selectable * ratio), at most all pages. That is what
// the server gives with memory.min_buffer_ratio = ratio - 1. REQUIRES: ratio >= 1.
int32_t SlotsAt(const TraceHeader& header, double ratio);

// One stream of a trace through `num_slots` slots. Steps before `first_counted` run, but are not counted: they fill the
// cache. REQUIRES: num_slots is no less than any selection.
HitCounts ReplayStream(const TraceHeader& header, const StreamTrace& stream, Policy policy,
                       int32_t num_slots, int32_t first_counted);

// All streams, summed for each layer.
std::vector<HitCounts> ReplayLayers(const SelectionTrace& trace, Policy policy, int32_t num_slots,
                                    int32_t first_counted);

}  // namespace spin::trace
