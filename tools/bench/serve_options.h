// What `spin_bench serve` was asked to do, and the flags it is read from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"

namespace spin {

struct ServeOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string model;  // empty: the first of /v1/models
  std::string api_key;
  std::string extra_body;  // a JSON object merged into every request; empty: none
  bool chat = false;       // /v1/chat/completions in place of /v1/completions

  // Load. With a request rate the loop is open (Poisson arrivals) and `concurrency` caps what is in
  // flight; 0 means no cap. Without one it is closed: `concurrency` clients, each sends when its
  // last answer ended.
  int concurrency = 0;      // 0 in a closed loop: 4
  double request_rate = 0;  // requests a second; 0: closed loop
  int num_prompts = 32;
  int num_warmups = 1;

  // Prompts.
  int input_len = 256;     // tokens
  int output_len = 64;     // tokens
  int prefix_len = 0;      // of the input, tokens shared by all prompts
  double range_ratio = 0;  // lengths uniform in len * [1 - ratio, 1 + ratio]
  bool token_ids = false;
  int max_token_id = 10000;  // exclusive
  bool ignore_eos = false;
  double temperature = 0;
  uint64_t seed = 0;

  double wait_s = 0;       // for the server to answer
  double timeout_s = 600;  // of a request, between two reads
  std::vector<double> percentiles = {50, 90, 99};
  std::string output_json;  // empty: no file
  bool save_detailed = false;

  int EffectiveConcurrency() const {
    return concurrency == 0 && request_rate == 0 ? 4 : concurrency;
  }
};

// `args` without program name and subcommand. Unknown flags, bad numbers and impossible pairs are
// InvalidArgument.
absl::StatusOr<ServeOptions> ParseServeOptions(std::span<const std::string> args);

std::string ServeHelp();

}  // namespace spin
