// The retrieval tasks of the testbed's language of token ids (tools/testbed/README.md is the specification, draw by
// draw): each answer stands at one exact place of the context.
#pragma once

#include <memory>
#include <vector>

#include "models/model_folder.h"
#include "tools/eval/task.h"

namespace spin::eval {

inline constexpr int32_t kTestbedVocab = 1024;

// A model without tokenizer and with the language's vocabulary.
bool SpeaksTestbed(const ModelFolder& folder);

// needle, multi_key, multi_value, multi_query, tracking. A sample's prompt has exactly `context` tokens; its answer is
// right (1) when every token is, else 0. InvalidArgument outside of 256 <= context < 2^20, index < 2^16, seed < 2^24.
std::vector<std::unique_ptr<EvalTask>> MakeTestbedTasks();

// A document of the same language: multi_key's records in filler, and behind them questions with their answers, as in
// training; a third of it at most. InvalidArgument outside of 256 <= tokens < 2^20, seed < 2^24.
absl::StatusOr<std::vector<int32_t>> MakeTestbedDocument(int32_t tokens, uint64_t seed);

}  // namespace spin::eval
