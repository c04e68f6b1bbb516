// Teacher forcing through the decode path: the first tokens of a text are prefilled, the last ones go through decode
// steps one by one, whatever the model would have said. What the model computes at each position then depends on what
// its steps attend to, and on nothing else.
//
// Ordinary one-shot perplexity never runs a decode step, so it says nothing about a sparse algorithm.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <span>
#include <vector>

#include "common/status.h"
#include "tools/eval/attention_meter.h"
#include "tools/eval/session.h"

namespace spin::eval {

using Tokens = std::vector<int32_t>;

struct ForcedOptions {
  int32_t num_forced = 128;                 // last tokens of each document, at least 1
  int32_t num_measured = 0;                 // steps among them, evenly spread, that the meters see
  std::span<AttentionMeter* const> meters;  // one a variant, or none
};

// Called for each variant, document and forced step with the logits behind tokens[size - num_forced + step].
using LogitsSink = absl::FunctionRef<void(size_t variant, size_t document, int32_t step,
                                          std::span<const float> logits)>;

// Runs all documents under all variants of the session, session.batch() documents at once. REQUIRES: each is longer
// than num_forced.
absl::Status ForcedDecode(Session& session, std::span<const Tokens> documents,
                          const ForcedOptions& options, LogitsSink sink);

}  // namespace spin::eval
