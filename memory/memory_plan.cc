#include "memory/memory_plan.h"

#include <algorithm>
#include <limits>

#include "common/check.h"
#include "common/math.h"
#include "common/units.h"

namespace spin {
namespace {

constexpr int64_t kInt32Bytes = sizeof(int32_t);
constexpr int32_t kNumDirectories = 4;

void CheckGeometry(const KvGeometry& g) {
  SPIN_CHECK(g.num_layers > 0 && g.num_kv_heads > 0 && g.head_dim > 0);
  SPIN_CHECK(g.num_q_heads > 0 && g.num_q_heads % g.num_kv_heads == 0);
  SPIN_CHECK(g.page_tokens > 0 && kExtentTokens % g.page_tokens == 0);
  SPIN_CHECK(g.partition_tokens >= 0 && kExtentTokens % g.extent_partitions() == 0);
  SPIN_CHECK(g.unsettled_tokens >= 0);
  SPIN_CHECK(g.max_rows > 0 && g.max_extents > 0 && g.summary_elements >= 0);
  SPIN_CHECK(g.key_rank >= 0);
}

int64_t DirectoryBytes(const KvGeometry& g) {
  const int64_t places = int64_t{g.max_rows} * g.num_layers;
  return kNumDirectories * RoundUp(places * g.max_extents * kInt32Bytes, kArrayAlignment) +
         RoundUp(g.max_rows * kInt32Bytes, kArrayAlignment) +
         RoundUp(places * kInt32Bytes, kArrayAlignment);
}

int64_t SlotStateBytes(const KvGeometry& g, int64_t slot_extents) {
  const int64_t slots = slot_extents * g.pages_per_extent();
  return RoundUp(slots * kInt32Bytes, kArrayAlignment) + RoundUp(slots, kArrayAlignment);
}

int64_t KeyBasisBytes(const KvGeometry& g) {
  return int64_t{g.max_rows} * g.num_layers * g.key_basis_bytes();
}

// HBM that one more slot extent takes, alignment apart.
int64_t BytesPerSlotExtent(const KvGeometry& g) {
  return g.extent_bytes() + g.summary_extent_bytes() + g.pages_per_extent() * (kInt32Bytes + 1);
}

// The most extents that a pool can use: what directories can name, and what int32 slot indices can
// reach.
int64_t MostExtents(const KvGeometry& g) {
  return std::min(int64_t{g.max_rows} * g.num_layers * g.max_extents,
                  int64_t{std::numeric_limits<int32_t>::max()} / g.pages_per_extent());
}

}  // namespace

int64_t HbmBytes(const KvGeometry& g, int64_t num_slot_extents, int64_t num_host_extents) {
  return DirectoryBytes(g) + SlotStateBytes(g, num_slot_extents) + KeyBasisBytes(g) +
         num_host_extents * g.meta_segment_bytes() +
         (num_slot_extents + num_host_extents) * g.summary_extent_bytes() +
         num_slot_extents * g.extent_bytes();
}

absl::StatusOr<MemoryPlan> PlanMemory(const KvGeometry& g, int64_t hbm_budget_bytes,
                                      int64_t host_pool_bytes) {
  CheckGeometry(g);
  SPIN_CHECK(hbm_budget_bytes >= 0 && host_pool_bytes >= 0);
  const int64_t host = std::min(host_pool_bytes / g.extent_bytes(), MostExtents(g));
  if (host_pool_bytes > 0 && host < g.num_layers) {
    return ResourceExhausted(
        "memory.host_pool: %s holds less than one extent (%d tokens) a layer; at least %s (%d "
        "bytes) "
        "are needed, or 0 to switch the host tier off",
        FormatBytes(host_pool_bytes), kExtentTokens, FormatBytes(g.num_layers * g.extent_bytes()),
        g.num_layers * g.extent_bytes());
  }
  const int64_t least = HbmBytes(g, g.num_layers, host);
  if (hbm_budget_bytes < least) {
    return ResourceExhausted(
        "memory.hbm_budget: %s does not hold one extent (%d tokens) a layer beside the tables%s; "
        "at "
        "least %s (%d bytes) are needed",
        FormatBytes(hbm_budget_bytes), kExtentTokens,
        host > 0
            ? " (memory.host_pool takes summaries and meta segments in HBM: a smaller one needs "
              "less)"
            : "",
        FormatBytes(least), least);
  }
  int64_t slots = std::min(MostExtents(g),
                           g.num_layers + (hbm_budget_bytes - least) / BytesPerSlotExtent(g) + 1);
  while (HbmBytes(g, slots, host) > hbm_budget_bytes) --slots;  // alignment: a step or two
  SPIN_CHECK_GE(slots, int64_t{g.num_layers});

  MemoryPlan plan;
  plan.geometry = g;
  plan.hbm_budget_bytes = hbm_budget_bytes;
  plan.host_pool_bytes = host_pool_bytes;
  plan.num_slot_extents = Narrow<int32_t>(slots);
  plan.num_host_extents = Narrow<int32_t>(host);
  plan.num_summary_extents = g.summary_elements > 0 ? Narrow<int32_t>(slots + host) : 0;
  plan.num_meta_segments = plan.num_host_extents;
  plan.directory_bytes = DirectoryBytes(g);
  plan.slot_state_bytes = SlotStateBytes(g, slots);
  plan.key_basis_bytes = KeyBasisBytes(g);
  plan.meta_bytes = host * g.meta_segment_bytes();
  plan.summary_bytes = plan.num_summary_extents * g.summary_extent_bytes();
  plan.slot_bytes = slots * g.extent_bytes();
  plan.host_bytes = host * g.extent_bytes();
  SPIN_CHECK_EQ(plan.hbm_bytes(), HbmBytes(g, slots, host));
  SPIN_CHECK_LE(plan.hbm_bytes(), hbm_budget_bytes);
  return plan;
}

int64_t MemoryPlan::resident_tokens() const {
  const int64_t extents = num_slot_extents / geometry.num_layers;
  return std::min<int64_t>(extents, geometry.max_extents) * kExtentTokens;
}

int64_t MemoryPlan::host_tokens() const {
  const int64_t extents = num_host_extents / geometry.num_layers;
  return std::min<int64_t>(extents, geometry.max_extents) * kExtentTokens;
}

std::string MemoryPlan::ToText() const {
  const KvGeometry& g = geometry;
  std::string text;
  const auto line = [&](const char* item, int64_t bytes, const std::string& holds) {
    absl::StrAppendFormat(&text, "%-24s %10s  %s\n", item, FormatBytes(bytes), holds);
  };
  const auto tokens = [&](int32_t extents) {
    return absl::StrFormat("%d extents of %s: %d tokens in all", extents,
                           FormatBytes(g.extent_bytes()),
                           int64_t{extents} / g.num_layers * kExtentTokens);
  };
  line("memory.hbm_budget", hbm_budget_bytes, "");
  line("  slots", slot_bytes, tokens(num_slot_extents));
  line("  slot owners, ages", slot_state_bytes,
       absl::StrFormat("%d slots a head", int64_t{num_slot_extents} * g.extent_pages()));
  line("  summaries", summary_bytes, absl::StrFormat("%d extents", num_summary_extents));
  line("  meta segments", meta_bytes, absl::StrFormat("%d segments", num_meta_segments));
  line(
      "  directories, rows", directory_bytes,
      absl::StrFormat("%d rows x %d layers x %d extents", g.max_rows, g.num_layers, g.max_extents));
  if (key_basis_bytes > 0) {
    line("  bases of keys", key_basis_bytes,
         absl::StrFormat("%d rows x %d layers of rank %d", g.max_rows, g.num_layers, g.key_rank));
  }
  line("  unused", hbm_budget_bytes - hbm_bytes(), "");
  line("memory.host_pool", host_pool_bytes,
       num_host_extents > 0 ? "" : "off: no sequence is Tiered");
  line("  pages", host_bytes, tokens(num_host_extents));
  line("  unused", host_pool_bytes - host_bytes, "");
  return text;
}

}  // namespace spin
