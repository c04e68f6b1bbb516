// What a launch works on: the rows of a decode step, or the sequences and tiles of a prefill with the staging of their
// keys and values.
//
// PODs; pointers are device memory unless a comment says otherwise. Counts that change from step to step are read from
// device memory, so that a captured step can be replayed.
#pragma once

#include <cstdint>

namespace spin {

// The rows of one decode step: entry b < *num_rows of each [max_batch] array is batch place b.
struct DecodeRows {
  int32_t max_batch = 0;              // bucket: what grids are sized for; host-known
  const int32_t* num_rows = nullptr;  // [1] <= max_batch
  const int32_t* rows = nullptr;      // [max_batch] table row of each place
  int32_t* token = nullptr;  // [max_rows] input token of the row; Sample writes the next one
  int32_t* position =
      nullptr;  // [max_rows] tokens already in the cache = position of `token`; Sample adds 1
};

// One sequence of a prefill batch. Its tokens start at a page boundary of the staging area.
struct PrefillSlice {
  int32_t row = 0;
  int32_t token_begin = 0;    // in the packed batch
  int32_t num_tokens = 0;     // computed by this prefill
  int32_t page_begin = 0;     // first staging page of the sequence (a head)
  int32_t prefix_tokens = 0;  // tokens before them, already in staging (0 without a prefix)
};

// The KV of one layer of a prefill batch: room for [Hkv][num_pages] pages, in an arrangement of the backend's own (CPU:
// pages; CUDA: a plane of keys and one of values a head). A token's place counts tokens from the head's begin.
struct Staging {
  void* pages = nullptr;
  int32_t num_pages = 0;  // a head
};

// A run of one sequence's tokens within a tile: queries token_begin .. + num_tokens of the tile; keys kv_begin .. +
// kv_tokens of staging, the last of which belongs to the last query.
struct PrefillSegment {
  int32_t token_begin = 0;
  int32_t num_tokens = 0;
  int32_t kv_begin = 0;
  int32_t kv_tokens = 0;
};

}  // namespace spin
