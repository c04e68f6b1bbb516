// Parameters of Retrieve and Attention, and the commands that change the tables between steps. Conventions: params.h.
#pragma once

#include <cstdint>

#include "kernels/batch.h"
#include "kernels/kv_layout.h"

namespace spin {

// ---- Retrieve ----------------------------------------------------------------------------------------------------

// Which partitions leave HBM: the oldest by age, just enough of them (the rule); all that this step did not select;
// all but the tail, so that every step fetches what it selects. The last two are controls for measurement.
enum class Eviction : int32_t { kBucketed = 0, kLastStep = 1, kNone = 2 };

// What Lookup counts of one row: pages a KV head, over all layers and steps. Each miss is one page that the gather
// fetches from the host, or its values. And what Select counts: pages that its budget had room for, left out by a
// threshold.
struct RetrieveCounters {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t evictions = 0;
  uint64_t rebuilt = 0;  // misses whose values alone were fetched; RebuildKeys counts them
  uint64_t spared = 0;

  // What crossed the link, for pages of so many bytes.
  uint64_t Bytes(uint64_t page_bytes) const {
    return misses * page_bytes - rebuilt * (page_bytes / 2);
  }

  RetrieveCounters& operator+=(const RetrieveCounters& other) {
    hits += other.hits;
    misses += other.misses;
    evictions += other.evictions;
    rebuilt += other.rebuilt;
    spared += other.spared;
    return *this;
  }
  friend RetrieveCounters operator-(RetrieveCounters a, const RetrieveCounters& b) {
    return {a.hits - b.hits, a.misses - b.misses, a.evictions - b.evictions, a.rebuilt - b.rebuilt,
            a.spared - b.spared};
  }
  friend bool operator==(const RetrieveCounters&, const RetrieveCounters&) = default;
};

// Residency of the selected partitions of each stream, victims for the misses, new ages, the list of slots to attend
// to and the list of pages to copy. memory/README.md has the rule; bit-exact on every backend.
struct LookupParams {
  DecodeRows decode;
  const int32_t* ids =
      nullptr;  // [max_batch][Hkv][max_selected] ascending, or null: all pages of the sequence
  const int32_t* count = nullptr;  // [max_batch][Hkv], unused when ids is null
  int32_t max_selected = 0;
  int32_t layer = 0;
  Eviction eviction = Eviction::kBucketed;
  KvTables tables;
  int32_t* page_list =
      nullptr;  // [max_batch][Hkv][max_list] slot (page index in the slot pool), ids' order
  int32_t* list_len = nullptr;  // [max_batch][Hkv]
  int32_t max_list = 0;
  int64_t* copy_src = nullptr;  // [max_batch][Hkv][max_list] page index in the host pool
  int32_t* copy_dst = nullptr;  // [max_batch][Hkv][max_list] page index in the slot pool
  int32_t* copy_len = nullptr;  // [max_batch][Hkv]
  // [max_batch][Hkv], or null. Otherwise the pages of a list that need no copy come first (hits, a fresh tail), then
  // the others, each in ids' order; the former hold ready_tokens tokens.
  int32_t* ready_tokens = nullptr;
  // Masks of the selected pages, [max_batch][Hkv][max_selected], and where they go with them:
  // [max_batch][Hkv][max_list] in the list's order. Null: pages without masks.
  const uint8_t* page_mask = nullptr;
  uint8_t* list_mask = nullptr;
  RetrieveCounters* counters = nullptr;  // [max_rows], added to; never cleared by a kernel
};

// Writes k and v of the new token into the slot of its page, and (Tiered) through to the host page.
struct AppendKvParams {
  DecodeRows decode;
  const void* qkv = nullptr;
  int32_t layer = 0;
  KvTables tables;
};

// Fetches the missing pages: slots[copy_dst] = host_pages[copy_src].
//
// With whole_last > 0 the keys of some pages stay behind, to be rebuilt (RebuildKeysParams): of those that lie before
// the row's last `whole_last`, are no outliers (NaN in the summary's first element), and whose row has a basis; but not
// where the stream lists all of its pages, as attention to the whole context is exact. The partition that a slot is to
// hold is its owner, as Lookup leaves it.
struct GatherPagesParams {
  DecodeRows decode;
  int32_t layer = 0;  // used with whole_last > 0 alone, as list_len
  int32_t whole_last = 0;
  const int32_t* list_len = nullptr;  // [max_batch][Hkv] as Lookup gives it
  KvTables tables;
  const int64_t* copy_src = nullptr;
  const int32_t* copy_dst = nullptr;
  const int32_t* copy_len = nullptr;
  int32_t max_list = 0;
};

// The keys that a gather with `whole_last` left behind: factor times basis in f32, rotated by their positions.
struct RebuildKeysParams {
  DecodeRows decode;
  int32_t layer = 0;
  int32_t whole_last = 0;  // > 0; the tail is no complete page and has no factor
  const int32_t* list_len = nullptr;
  KvTables tables;
  const float* rope_table = nullptr;  // as in RopeParams
  const int32_t* copy_dst = nullptr;
  const int32_t* copy_len = nullptr;
  int32_t max_list = 0;
  RetrieveCounters* counters = nullptr;  // [max_rows], added to
};

// ---- Attention ---------------------------------------------------------------------------------------------------

// What of a list is attended to. kReady and kFetched are two halves of one attention, so that the first may run while
// the second's pages are still on their way: kReady takes the first ready_tokens tokens; it finishes rows whose list
// ends there, and of the others leaves running maxima, weights and sums. kFetched takes the rest and finishes. Between
// the two calls, on one stream, nothing else of a decode step is enqueued there. REQUIRES of both: max_batch * Hq <=
// kMaxHalvedHeads.
enum class ListPart : int32_t { kAll, kReady, kFetched };
inline constexpr int64_t kMaxHalvedHeads = 16384;

// One query a batch place over the listed slots. The last page of a list holds position % P + 1 tokens, all others P;
// of a list in two parts this holds for the part that has the tail, and the other's are full.
// Tokens are summed in list order in blocks of 16 counted from the part's begin, whatever the page size, so that
// equal token lists give equal bits.
struct PagedAttentionParams {
  DecodeRows decode;
  const void* qkv = nullptr;  // [max_batch][(Hq + 2 Hkv) * d] act, after RoPE
  KvTables tables;
  const int32_t* page_list = nullptr;
  const int32_t* list_len = nullptr;
  int32_t max_list = 0;
  ListPart part = ListPart::kAll;
  const int32_t* ready_tokens = nullptr;  // [max_batch][Hkv] as Lookup gives it; unused by kAll
  float* partial =
      nullptr;  // scratch [max_batch][Hq][d + 2], unused by kAll; a backend may do without
  // Null: all tokens of a page. Otherwise a byte a listed page of 8 tokens, [max_batch][Hkv][max_list]: bit t = its
  // token t is attended to.
  const uint8_t* page_mask = nullptr;
  // Null, or attention to something else to be merged: [max_batch][Hq][d + 2] weighted sum, largest logit, sum of
  // weights (ClusterEstimateParams). The call that finishes a row merges it.
  const float* estimate = nullptr;
  void* out = nullptr;  // [max_batch][Hq * d] act
};

// ---- Tables ------------------------------------------------------------------------------------------------------

enum class TableCommandKind : int32_t {
  kSetPlacement,  // placement[row] = value
  kSetSlotExtent,  // slot_dir[row][layer][index] = value; owners of the extent's slots become kAbsent, ages 0
  kSetHostExtent,     // host_dir[row][layer][index] = value
  kSetSummaryExtent,  // summary_dir[row][layer][index] = value
  kSetMetaSegment,    // meta_dir[row][layer][index] = value; the segment's entries become kAbsent
  kSetNumSlots,  // num_slots[row][layer] = value; in a Tiered row what was in local slots from `value` on is
                 // evicted
  kShareSlotExtent,    // slot_dir[row][layer][index] = value, contents kept (a forked sequence)
  kCopySlotExtent,     // slots: extent `index` = extent `value`, all bytes
  kCopyHostExtent,     // host pages: likewise
  kCopySummaryExtent,  // summaries: likewise
  kCopyKeyBasis,  // bases of keys: that of (row, layer) number `index` = number `value`, see BasisIndex
  kSpillExtent,  // host extent `index` = slot extent `value`, all bytes (demotion)
  kBindSlots,  // local slot j < num_slots of every head holds partition index + j, for index + j < value:
               // owner, meta and age 0 set (demotion keeps what is there)
  kClearHistory,  // history[row] = 0
};

// One change of the tables, applied in order by Ops::UpdateTables between steps. value kAbsent unmaps.
struct TableCommand {
  TableCommandKind kind = TableCommandKind::kSetPlacement;
  int32_t row = 0;
  int32_t layer = 0;
  int32_t index = 0;
  int32_t value = 0;
};

struct UpdateTablesParams {
  const TableCommand* commands = nullptr;  // [num_commands] pinned
  int32_t num_commands = 0;
  KvTables tables;
  uint32_t* history = nullptr;  // [max_rows][vocab]
  int32_t vocab = 0;
};

// history[row] of each id: bit 31 set for prompt tokens; with `generated` the count grows by one instead.
struct MarkPromptParams {
  const int32_t* ids = nullptr;  // [n] pinned
  bool generated = false;
  int32_t n = 0;
  int32_t row = 0;
  uint32_t* history = nullptr;
  int32_t vocab = 0;
};

}  // namespace spin
