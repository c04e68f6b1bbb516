// The arithmetic of admission: what sequences need of each pool, and which of them make room for
// others. Pure functions of counts; memory/README.md has the policy in words.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_layout.h"
#include "kernels/params.h"

namespace spin {

// Which partitions have a summary, hence when Index writes one.
enum class SummaryCover : int32_t {
  kBegunPages,      // with each token of the page
  kCompletePages,   // with the page's last token
  kSettledExtents,  // of clusters: when their extent is settled (KvGeometry)
};

// What Index and Select do with the summaries of a stream. For accounting alone (traffic.h): no room depends on it.
struct SummaryUse {
  SummaryCover cover = SummaryCover::kCompletePages;
  int32_t scored_elements = 0;  // of each summary that Select scores, as far as scoring reads it
  int32_t unscored_last = 0;    // the last pages, whose summaries it does not score
  // Where clusters are selected instead of pages, their ClusterBudget (params.h); min_retrieve 0: pages are.
  int32_t min_retrieve = 0;
  int32_t retrieve_permille = 0;
  int32_t estimate_permille = 0;

  friend bool operator==(const SummaryUse&, const SummaryUse&) = default;
};

// What one stream of a layer needs a step, as the algorithm declares it.
struct LayerDemand {
  bool whole_context = true;     // dense and exact mode: every page is mandatory
  int32_t fixed_pages = 0;       // always selected (sink, tail...)
  int32_t selectable_pages = 0;  // the most that Select adds to them
  int32_t context_divisor = 0;   // or pages / context_divisor where that is more; 0: no such rule
  SummaryUse summaries = {};

  // The most that Select adds in a stream of so many pages, as PageBudget (params.h) has it.
  constexpr int32_t Selectable(int32_t pages) const {
    return PageBudget{.selectable = selectable_pages, .context_divisor = context_divisor}
        .Selectable(pages);
  }
  // Pages that one step selects, at most, in a stream of so many. `budget_pages`: of a row with a budget of its own.
  constexpr int32_t Mandatory(int32_t pages, int32_t budget_pages = 0) const {
    if (whole_context) return pages;
    const int32_t budget = budget_pages > 0 ? budget_pages : fixed_pages + Selectable(pages);
    return budget < pages ? budget : pages;
  }
  friend bool operator==(const LayerDemand&, const LayerDemand&) = default;
};

// Layers of equal demand: a few groups at most.
struct LayerGroup {
  LayerDemand demand;
  int64_t num_layers = 0;
};
std::vector<LayerGroup> GroupLayers(std::span<const LayerDemand> layers);

// Extents of each pool (free, held or needed).
struct PoolCounts {
  int64_t slots = 0;
  int64_t host = 0;
  int64_t summaries = 0;
  int64_t meta = 0;

  // Every count at least that of `need`.
  bool Covers(const PoolCounts& need) const;
  PoolCounts& operator+=(const PoolCounts& other);
  PoolCounts& operator-=(const PoolCounts& other);
  friend PoolCounts operator+(PoolCounts a, const PoolCounts& b) { return a += b; }
  friend PoolCounts operator-(PoolCounts a, const PoolCounts& b) { return a -= b; }
  friend bool operator==(const PoolCounts&, const PoolCounts&) = default;
};

// Page slots of a Tiered row, over all layers and KV heads: what one step may select of its reservation, and the buffer
// beside it.
struct SlotCounts {
  int64_t mandatory = 0;
  int64_t buffering = 0;
};

// What a reservation of so many tokens takes, in either placement. `budget_pages`: all that a stream of the row
// selects in a step, where the request has a budget of its own; 0: as the algorithm declares. Layers that need the
// whole context heed neither.
class Footprint {
 public:
  // REQUIRES: one demand a layer, 0 <= min_buffer_ratio <= max_buffer_ratio.
  Footprint(const KvGeometry& geometry, std::span<const LayerDemand> layers,
            double min_buffer_ratio, double max_buffer_ratio);

  const KvGeometry& geometry() const { return geometry_; }

  // Extents a layer, pages a stream, that `tokens` fill or begin.
  int32_t Extents(int64_t tokens) const;
  int32_t Pages(int64_t tokens) const;

  // Slots that a stream of a Tiered row can use: all pages for whole_context, else
  // min(pages, fixed + ceil(selectable * (1 + ratio))), selectable as for the whole reservation, or what budget_pages
  // leaves beside the fixed ones. Its row holds slot extents for `ratio` from min_buffer_ratio (what it is admitted
  // with, and never less) to max_buffer_ratio.
  // Slot extents of a Tiered row at least: of one layer, of all. And at most, of one layer.
  int32_t TieredSlotExtents(int32_t layer, int64_t tokens, int32_t budget_pages = 0) const;
  int64_t AllTieredSlotExtents(int64_t tokens, int32_t budget_pages = 0) const;
  int32_t MostSlotExtents(int32_t layer, int64_t tokens, int32_t budget_pages = 0) const;
  // Slots of a stream whose row has so many slot extents in the layer: all of them, as far as it can use them.
  int32_t NumSlots(int32_t layer, int64_t tokens, int32_t slot_extents,
                   int32_t budget_pages = 0) const;
  // Of a row, over all layers and KV heads: what one step may select of its reservation.
  int64_t MandatorySlots(int64_t tokens, int32_t budget_pages = 0) const;

  // The least budget of its own that a row may have, and what the algorithm selects at most; 0 where every layer needs
  // the whole context.
  int32_t min_budget_pages() const;
  int32_t max_mandatory_pages() const;

  // `num_sequences` sequences of one prompt that reserve `reserve_tokens` each; the settled extents
  // of the prompt exist once but for meta segments and Tiered slots, which every sequence has for
  // itself.
  PoolCounts Resident(int64_t prompt_tokens, int64_t reserve_tokens, int32_t num_sequences) const;
  PoolCounts Tiered(int64_t prompt_tokens, int64_t reserve_tokens, int32_t num_sequences,
                    int32_t budget_pages = 0) const;

 private:
  int32_t UsableSlots(int32_t layer, int64_t tokens, double buffer_ratio,
                      int32_t budget_pages) const;

  KvGeometry geometry_;
  std::vector<LayerDemand> layers_;
  std::vector<LayerGroup> groups_;
  double min_buffer_ratio_, max_buffer_ratio_;
};

// What is demoted in one go: a Resident row, or all Resident rows that share the extents of one
// prompt.
struct DemotionUnit {
  int32_t first_row = 0;  // the lowest
  PoolCounts held;        // now
  PoolCounts wanted;      // when Tiered
};

inline constexpr int32_t kNoUnit = -1;

// Which units to demote so that `need` fits: the one that frees most slots first, ties to the
// lowest row; a unit that the host tier cannot take beside `need` is passed over. `growing` names
// the unit whose own growth `need` is (or kNoUnit): its `wanted` includes the growth, so that
// choosing it settles the need; it comes last in the answer. Writes unit indices to `chosen` in the
// order in which they are to be demoted. False: does not fit, `chosen` is empty.
bool PlanDemotions(PoolCounts free, PoolCounts need, std::span<const DemotionUnit> units,
                   int32_t growing, std::vector<int32_t>& chosen);

}  // namespace spin
