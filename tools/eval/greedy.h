// Free-running greedy decoding, and where two runs of it part.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/status.h"
#include "tools/eval/session.h"

namespace spin::eval {

struct GreedyPrompt {
  std::vector<int32_t> tokens;
  int32_t max_new = 64;
};

// What one variant says, a prompt each.
using Runs = std::vector<std::vector<int32_t>>;

// What each variant of the session says to each prompt, session.batch() prompts at once: up to max_new tokens, or up to
// and without the first of `stop_tokens`.
absl::StatusOr<std::vector<Runs>> GreedyDecode(Session& session,
                                               std::span<const GreedyPrompt> prompts,
                                               std::span<const int32_t> stop_tokens);

// Of several pairs of runs.
struct GreedyAgreement {
  double identical = 0;  // share of pairs that are equal to the end
  // Mean number of equal tokens at the begin (of equal pairs: the length), and that as a share of dense's length.
  double common_tokens = 0;
  double common_share = 0;
  double length_ratio = 0;  // tokens of all sparse runs over those of all dense ones
};

// REQUIRES: as many runs in both.
GreedyAgreement CompareRuns(const Runs& dense, const Runs& sparse);

}  // namespace spin::eval
