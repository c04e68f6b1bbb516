// What the stages of one layer see: the device, the tables, the batch, and the scratch buffers they
// hand each other.
//
// Plain data, filled by the pipeline; stages enqueue on `stream` and never wait.
#pragma once

#include <cstdint>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/params.h"

namespace spin {

// Scratch of a decode step, sized once (workspace.h).
struct SelectScratch {
  float* logits = nullptr;   // [max_batch][Hq][max_pages]
  float* scores = nullptr;   // [max_batch][Hkv][max_pages]
  int32_t* ids = nullptr;    // [max_batch][Hkv][max_selected]
  int32_t* count = nullptr;  // [max_batch][Hkv]
  int32_t max_selected = 0;
  // Of algorithms whose partitions are no pages; else null.
  uint8_t* page_mask = nullptr;  // [max_batch][Hkv][max_selected]
  // Of algorithms that estimate; else null.
  int32_t* estimate_ids = nullptr;    // [max_batch][Hkv][max_estimated]
  int32_t* estimate_count = nullptr;  // [max_batch][Hkv]
  int32_t max_estimated = 0;
  float* estimate = nullptr;  // [max_batch][Hq][d + 2]
};

// One layer of one decode step.
struct DecodeStage {
  Ops& ops;
  Stream& stream;
  int32_t layer = 0;
  DecodeRows decode;
  const void* qkv = nullptr;          // [max_batch][(Hq + 2 Hkv) d] after RoPE
  const float* rope_table = nullptr;  // as in RopeParams; undoes the rotation, too
  KvTables tables;
  SelectScratch scratch;
  const int32_t* row_pages =
      nullptr;  // [max_rows] budgets of rows that have their own; SelectTopKParams
  void* index_scratch = nullptr;         // SparseAlgorithm::DecodeScratchBytes
  RetrieveCounters* counters = nullptr;  // [max_rows]
};

// The end of one layer of a prefill batch: all its KV is in staging.
struct PrefillStage {
  Ops& ops;
  Stream& stream;
  int32_t layer = 0;
  const float* rope_table = nullptr;
  const PrefillSlice* slices = nullptr;
  int32_t num_slices = 0;
  KvTables tables;
  Staging staging;
  void* scratch = nullptr;  // SparseAlgorithm::PrefillScratchBytes, of the copy stream alone
};

// What Select chose: ids in SelectScratch form, or (ids null) every page of the sequence.
struct Selection {
  const int32_t* ids = nullptr;
  const int32_t* count = nullptr;
  int32_t max_selected = 0;
  const uint8_t* page_mask = nullptr;  // as ids: the tokens of each page that are meant; null: all
  const float* estimate = nullptr;     // PagedAttentionParams::estimate; null: nothing
  // > 0: of pages that are missing, but the row's last `whole_last`, the values alone are fetched, and their keys
  // rebuilt from the factors in their summaries where they have one. Not of streams whose every page is selected
  // (GatherPagesParams).
  int32_t whole_last = 0;
};

}  // namespace spin
