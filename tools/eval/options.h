// The command line of spin_eval.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"

namespace spin::eval {

struct Options {
  // What to measure.
  bool kl = true, recall = true, greedy = true, tasks = true;

  // Of what.
  std::vector<std::string> algorithms;              // empty: all but dense
  bool exact = true, window = true, oracle = true;  // controls
  std::vector<int32_t> budgets = {256, 512, 1024};  // tokens, ascending
  bool own_budget = false;  // and what the server's options give at this context

  // On what.
  int32_t context = 2048;  // tokens of a document, and of a task's prompt with its answer
  int32_t documents = 4;
  std::string text;  // file; empty: made up (documents.h)
  int32_t forced = 128;
  int32_t recall_steps = 4;
  int32_t greedy_tokens = 64;
  std::vector<std::string> task_names;  // empty: all that suit the model
  int32_t samples = 4;                  // of each task
  int32_t batch = 4;
  uint64_t seed = 1;

  std::string json;  // file; empty: none
  bool per_layer = false;
  bool help = false;
  std::vector<std::string> server;  // the rest: flags of spind
};

// InvalidArgument names the flag.
absl::StatusOr<Options> ParseOptions(std::span<const std::string> args);

// What --help prints.
std::string HelpText();

}  // namespace spin::eval
