// Records a selection trace: a model in this process reads a text, teacher-forced.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/status.h"
#include "kernels/params.h"
#include "server/model_stack.h"
#include "tools/trace/selection_trace.h"

namespace spin::trace {

struct RecordOptions {
  int32_t prompt_tokens = 7680;
  int32_t num_steps = 512;
  std::string source;  // for the header
};

struct Recording {
  SelectionTrace trace;
  RetrieveCounters counters = {};  // of the recorded steps; all zero when the sequence was Resident
  int32_t num_slots = 0;           // a stream, when it was Tiered
  double nats_per_token =
      0;  // mean -log p of the text after the prompt: large when the model did not follow
};

// Prefills the first `prompt_tokens` of `tokens`; then step s computes tokens[prompt_tokens + s], whatever the model
// would have said: the next token is forced through the row's logit bias. Runs one step at a time.
//
// REQUIRES: prompt_tokens >= 1, num_steps >= 1. InvalidArgument: too few tokens, more than the model's context, an
// id outside of its vocabulary, or an algorithm that selects the whole context in some layer.
absl::StatusOr<Recording> RecordTrace(const ServerConfig& config, ModelPlan plan,
                                      std::span<const int32_t> tokens,
                                      const RecordOptions& options);

}  // namespace spin::trace
