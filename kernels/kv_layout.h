// Where the bytes of the KV cache are: the page, the extent, the two-level tables. The only place that knows.
//
// PODs and arithmetic only: CUDA files include this header.
//
//   page    [2][P][d]      K plane, then V plane, of P tokens of one KV head of one layer; same bytes on both tiers.
//   extent  [Hkv][E] pages  512 tokens of all KV heads of one layer (E = 512 / P): the unit in which both pools are
//                           allocated. With 8 heads of 128 in bf16 it is 2 MiB, one huge page.
//   stream  one (row, layer, KV head): the unit at which selection and residency happen. A row is a sequence's place
//           in the tables.
//
//   directory[row][layer][i] -> extent id       (first level; one directory for each pool)
//   extent id, head, page in extent -> address  (second level: arithmetic; no table read, on the host tier least of
// all)
//
// Four pools share this shape, one extent a time: slots (HBM pages), host pages, summaries, and meta segments (int32
// a partition: the local slot that holds it, or kAbsent). Metadata so follows the tokens that are stored.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace spin {

inline constexpr int32_t kExtentTokens = 512;
inline constexpr int32_t kAbsent = -1;  // no extent, no slot, no partition
inline constexpr int32_t kMaxAge = 63;  // ages saturate here (6 bits)

enum class Placement : int32_t { kNone = 0, kResident = 1, kTiered = 2 };

// Shape of the KV cache of one server; fixed at start. A partition is what Select chooses: a page, or with
// partition_tokens a cluster of so many tokens on average.
struct KvGeometry {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;
  int32_t num_q_heads = 0;  // a multiple of num_kv_heads
  int32_t head_dim = 0;     // 64 or 128
  int32_t page_tokens = 0;  // P: divides kExtentTokens
  int32_t max_rows = 0;     // rows of the tables: sequences that hold memory at once
  int32_t max_extents = 0;  // width of a directory: ceil(max_model_len / 512)
  int32_t summary_elements =
      0;  // elements of one partition's summary, 0 without (Quest: 2 * head_dim)
  int32_t partition_tokens = 0;  // 0: page_tokens; divides kExtentTokens
  // The last tokens of a sequence that Index may yet store at other places of their extent.
  int32_t unsettled_tokens = 0;
  int32_t key_rank = 0;        // of the factors that keys are rebuilt from (ShadowKV), 0 without
  DType dtype = DType::kBf16;  // of pages and summaries

  constexpr int32_t extent_pages() const { return kExtentTokens / page_tokens; }
  constexpr int32_t extent_partitions() const {
    return kExtentTokens / (partition_tokens > 0 ? partition_tokens : page_tokens);
  }
  // Extents of a sequence of so many tokens that nothing changes any more: full, and out of Index's reach.
  constexpr int64_t SettledExtents(int64_t tokens) const {
    return tokens < unsettled_tokens ? 0 : (tokens - unsettled_tokens) / kExtentTokens;
  }
  constexpr int32_t group() const { return num_q_heads / num_kv_heads; }
  constexpr int64_t plane_elements() const { return int64_t{page_tokens} * head_dim; }
  constexpr int64_t page_elements() const { return 2 * plane_elements(); }
  constexpr int64_t page_bytes() const { return page_elements() * SizeOf(dtype); }
  constexpr int32_t pages_per_extent() const { return num_kv_heads * extent_pages(); }  // all heads
  constexpr int64_t extent_bytes() const { return pages_per_extent() * page_bytes(); }
  constexpr int64_t summary_bytes() const { return summary_elements * SizeOf(dtype); }
  constexpr int64_t summary_extent_bytes() const {
    return int64_t{num_kv_heads} * extent_partitions() * summary_bytes();
  }
  constexpr int64_t meta_segment_bytes() const {
    return pages_per_extent() * int64_t{sizeof(int32_t)};
  }
  // A page's factor is [P][key_rank], of all KV heads together. It lies in the heads' summaries of the page, cut flat
  // into as many pieces of key_piece() elements: head h's summary ends with piece h. A run of 8 elements is in one
  // piece.
  constexpr int32_t key_piece() const {
    return (page_tokens * key_rank + 8 * num_kv_heads - 1) / (8 * num_kv_heads) * 8;
  }
  constexpr int32_t key_width() const { return num_kv_heads * head_dim; }  // a token's keys
  constexpr int64_t key_basis_elements() const { return int64_t{key_width()} * key_rank; }
  constexpr int64_t key_basis_bytes() const { return key_basis_elements() * SizeOf(dtype); }
  constexpr int32_t max_pages() const { return max_extents * extent_pages(); }  // of one stream

  // Index of a page in its pool: extent `extent`, KV head `head`, page `i` of the extent.
  constexpr int64_t PageIndex(int32_t extent, int32_t head, int32_t i) const {
    return (int64_t{extent} * num_kv_heads + head) * extent_pages() + i;
  }
  // Index of a partition's summary in its pool.
  constexpr int64_t SummaryIndex(int32_t extent, int32_t head, int32_t i) const {
    return (int64_t{extent} * num_kv_heads + head) * extent_partitions() + i;
  }
  // Index into a directory: entry `i` of (row, layer).
  constexpr int64_t DirIndex(int32_t row, int32_t layer, int32_t i) const {
    return (int64_t{row} * num_layers + layer) * max_extents + i;
  }
  // Index of a basis of keys: of (row, layer).
  constexpr int32_t BasisIndex(int32_t row, int32_t layer) const {
    return row * num_layers + layer;
  }
  // Element offsets of token `t` of a page, from the page's begin.
  constexpr int64_t KeyOffset(int32_t t) const { return int64_t{t} * head_dim; }
  constexpr int64_t ValueOffset(int32_t t) const {
    return plane_elements() + int64_t{t} * head_dim;
  }
};

// The tables and pools, all in device memory but `host_pages` (pinned host memory, readable by kernels). Kernels own
// them during a step; the host changes them between steps only, through Ops::UpdateTables.
struct KvTables {
  KvGeometry geometry;

  // Directories, [max_rows][num_layers][max_extents] extent ids or kAbsent.
  int32_t* slot_dir =
      nullptr;  // HBM slots. Resident: page p is slot p. Tiered: any page in any slot
  int32_t* host_dir = nullptr;     // host pages (Tiered)
  int32_t* summary_dir = nullptr;  // summaries (algorithms that have them; both placements)
  int32_t* meta_dir = nullptr;     // meta segments (Tiered)

  int32_t* placement = nullptr;  // [max_rows] Placement
  int32_t* num_slots =
      nullptr;  // [max_rows][num_layers] slots a stream of the layer may use (Tiered)

  // Second level. "local slot" j of a stream is page j % E of extent slot_dir[..][j / E].
  int32_t* meta =
      nullptr;  // [meta segments][Hkv][E] local slot that holds the partition, or kAbsent
  int32_t* slot_owner = nullptr;  // [slot extents][Hkv][E] partition in the slot, or kAbsent
  uint8_t* slot_age =
      nullptr;  // [slot extents][Hkv][E] steps since it was selected, saturating at kMaxAge

  void* slots = nullptr;       // [slot extents][Hkv][E] pages
  void* host_pages = nullptr;  // [host extents][Hkv][E] pages
  void* summaries = nullptr;   // [summary extents][Hkv][extent_partitions][summary_elements]

  // [max_rows][num_layers][Hkv * d][key_rank]: what spans the keys of a row (KeyFactorPrefillParams), of the pages'
  // type. The first element is NaN where the row's keys have no factor.
  void* key_basis = nullptr;
};

}  // namespace spin
