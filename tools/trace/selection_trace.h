// SelectionTrace: what Select chose for one sequence at each decode step, for every layer and KV head; and its file.
//
// Hit ratios depend on how selections follow each other, which random weights and random prompts do not have. A trace
// is recorded once from a real model on real text (record_trace.h) and replayed without it: through cache policies
// (cache_policy.h), or in place of Select in a benchmark (replay_algorithm.h).
//
// The file, little-endian:
//
//   char[8]  "SPINTRC\n"
//   u32      version, 1
//   u32      num_layers, num_kv_heads, page_tokens, budget_pages, fixed_pages, prompt_tokens, num_steps
//   text     model, then source: u32 bytes and so many bytes of UTF-8 each
//   payload  for each layer, each KV head, each step: the pages that are in exactly one of this selection and the one
//            before it (at first: none), ascending: varint count, then of each page a varint gap: the page at first,
//            then the page minus its predecessor minus 1
//
// A varint is LEB128: seven bits a byte, low bits first, the top bit set on all bytes but the last. Selections follow
// each other closely and gaps are small, so a page that comes or goes costs about a byte, one that stays nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace spin::trace {

struct TraceHeader {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;
  int32_t page_tokens = 0;
  int32_t budget_pages = 0;   // most pages of one selection, the fixed ones included
  int32_t fixed_pages = 0;    // of them selected in every step
  int32_t prompt_tokens = 0;  // step s computes the token at position prompt_tokens + s
  int32_t num_steps = 0;
  std::string model = {};   // folder's name
  std::string source = {};  // of the text

  // Page of the token of step `step`, the last of each selection; and whether that token opens it.
  int32_t Tail(int32_t step) const { return (prompt_tokens + step) / page_tokens; }
  bool FreshTail(int32_t step) const { return (prompt_tokens + step) % page_tokens == 0; }
  // Pages of the sequence after its last step.
  int32_t num_pages() const { return Tail(num_steps - 1) + 1; }

  friend bool operator==(const TraceHeader&, const TraceHeader&) = default;
};

// The selections of one layer and KV head, in the order of steps.
struct StreamTrace {
  std::vector<int32_t> ids;   // of all steps, one after another
  std::vector<int64_t> ends;  // of each step in `ids`

  std::span<const int32_t> At(int32_t step) const {
    const int64_t begin = step == 0 ? 0 : ends[static_cast<size_t>(step) - 1];
    return {ids.data() + begin, static_cast<size_t>(ends[static_cast<size_t>(step)] - begin)};
  }
};

class SelectionTrace {
 public:
  // Without steps at first. REQUIRES: layers, heads, pages and steps > 0.
  explicit SelectionTrace(TraceHeader header);

  // InvalidArgument, with what is wrong, for bytes that are no trace. Decoded, every selection keeps Append's rules.
  static absl::StatusOr<SelectionTrace> Decode(std::string_view bytes);
  static absl::StatusOr<SelectionTrace> ReadFile(const std::string& path);
  // REQUIRES: complete.
  std::string Encode() const;
  absl::Status WriteFile(const std::string& path) const;

  // The next step's selection of a stream. REQUIRES: 1..budget_pages ids >= 0, ascending; the last is the step's tail.
  void Append(int32_t layer, int32_t head, std::span<const int32_t> ids);

  const TraceHeader& header() const { return header_; }
  const StreamTrace& stream(int32_t layer, int32_t head) const {
    return streams_[static_cast<size_t>(layer * header_.num_kv_heads + head)];
  }
  // Every stream has num_steps selections.
  bool complete() const;

 private:
  TraceHeader header_;
  std::vector<StreamTrace> streams_;  // [num_layers][num_kv_heads]
};

}  // namespace spin::trace
