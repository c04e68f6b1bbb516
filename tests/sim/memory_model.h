// A small twin of the device: it applies TableCommands to host arrays and remembers, instead of
// keys and values, what each page would contain. Independent of memory/: it knows the commands and
// the layout, nothing of the manager's insides.
//
// The content of a page is a hash over the tokens written to it, in order. A token is its position
// mixed with the name of the text it belongs to: forked sequences have one name for their prompt
// and each its own afterwards. An extent that a decode step settles
// (KvGeometry::unsettled_tokens) changes in all its pages, in slots, on the host and in summaries,
// by the row's name. All KV heads are alike, so one stands for all. What no row maps is
// poisoned. Copies in the background run one by one at random later times. Checks abort (SPIN_CHECK).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/random.h"
#include "kernels/kv_layout.h"
#include "kernels/params.h"
#include "memory/kv_cache_manager.h"
#include "memory/memory_plan.h"

namespace spin::sim {

// What a row should contain.
struct Expected {
  bool live = false;  // its contents are there: prefill has finished
  uint64_t prompt_name = 0;
  uint64_t own_name = 0;  // of the tokens behind the prompt
  int64_t prompt_tokens = 0;
  int64_t length = 0;
  int32_t budget_pages = 0;     // of its own; 0: the layers'
  std::vector<uint64_t> pages;  // hash of each page
};

// The pages in the local slots of every stream of Tiered rows, kAbsent where there is none; no slots
// for other rows.
using Residency = std::vector<std::vector<int32_t>>;  // [max_rows * num_layers][num_slots]

class MemoryModel {
 public:
  explicit MemoryModel(const MemoryPlan& plan);

  // UpdateTables, as params.h describes it.
  void Apply(std::span<const TableCommand> commands);

  // Copies in the background, as TakeSpills hands them out.
  void StartSpills(std::span<const TableCommand> copies);
  // Some of them run now, in any order. True: all have run.
  bool RunSpills(Random& random);
  // The row is Resident and maps host extents: its demotion is under way.
  bool Leaving(int32_t row) const;

  Expected& expected(int32_t row) { return expected_[static_cast<size_t>(row)]; }

  // The prompt becomes what the row should contain.
  void ExpectPrompt(int32_t row);
  // Offload of a prefill: the prompt's pages and summaries go where the placement says.
  void WritePrompt(int32_t row);
  // One decode step: an extent may settle; the tail and random other pages are selected (whole context: all), what is
  // missing is fetched, the token is appended to slot, host and summary.
  void Decode(int32_t row, std::span<const LayerDemand> layers, Random& random);

  Residency Residents() const;
  // Rows that were Tiered then and have slots now kept the pages in the slots that they kept; what
  // was in slots that are gone is absent, new slots are empty. Returns the pages so evicted. REQUIRES:
  // nothing was decoded and no row was opened in the place of another since.
  int64_t CheckKept(const Residency& then) const;

  // Every row sees its own tokens, and nobody else maps what it may write.
  void CheckContents() const;

  int64_t settled() const { return settled_; }  // extents, by decode steps

 private:
  void ApplyOne(const TableCommand& command);
  void SetNumSlots(const TableCommand& command);
  void BindSlots(const TableCommand& command);
  void PoisonUnmapped();

  // Index of page `p` in the pool that `directory` maps. REQUIRES: mapped.
  size_t Find(const std::vector<int32_t>& directory, int32_t row, int32_t layer, int32_t p) const;
  size_t Dir(int32_t row, int32_t layer, int32_t i) const;
  int32_t NumSlots(int32_t row, int32_t layer) const;
  bool Tiered(int32_t row) const;
  void SelectAndFetch(int32_t row, int32_t layer, const LayerDemand& demand, Random& random);
  void Fetch(int32_t row, int32_t layer, int32_t page, Random& random);
  // Extent `i` of the row gets its final contents.
  void Settle(int32_t row, int32_t i);
  void Append(uint64_t& content, int32_t layer, int64_t position, uint64_t name) const;

  void CheckRow(int32_t row, int32_t layer) const;
  void CheckExclusive(const std::vector<int32_t>& directory, size_t num_extents,
                      bool may_share) const;

  KvGeometry g_;
  std::vector<int32_t> slot_dir_, host_dir_, summary_dir_, meta_dir_, placement_, num_slots_;
  std::vector<int32_t> meta_, owner_;               // [extents][E]
  std::vector<uint64_t> slots_, host_, summaries_;  // [extents][E] contents
  std::vector<Expected> expected_;
  std::vector<uint8_t> selected_;     // [max_pages] of the stream in work
  std::vector<TableCommand> spills_;  // handed out, not yet run
  int64_t settled_ = 0;
};

}  // namespace spin::sim
