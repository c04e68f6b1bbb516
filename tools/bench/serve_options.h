// What `spin_bench serve` was asked to do, and the flags it is read from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "tools/bench/lengths.h"

namespace spin {

// A limit that a request must meet to count for goodput.
struct Objective {
  std::string metric;  // ttft, tpot or e2el
  double limit_ms = 0;
};

struct ServeOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string grpc;   // host:port of spin.v1.Inference, spoken instead of HTTP; empty: HTTP
  std::string model;  // empty: the server's first
  std::string api_key;
  std::string extra_body;  // a JSON object merged into every request; empty: none
  bool chat = false;       // /v1/chat/completions in place of /v1/completions

  // Load. With a request rate the loop is open: requests are sent at drawn times, all at once where
  // the rate is infinite, and `concurrency` caps what is in flight; 0 means no cap. Without one it
  // is closed: `concurrency` clients, each sends when its last answer ended.
  int concurrency = 0;      // 0 in a closed loop: 4
  double request_rate = 0;  // requests a second; 0: closed loop
  double burstiness = 1;    // shape of the Gamma distribution of the gaps
  int num_prompts = 32;
  int num_warmups = 1;

  // Prompts. InputLengths() and its like say what is drawn from: after range_ratio and scale.
  LengthSpec input_len = 256;  // tokens
  LengthSpec output_len = 64;  // tokens
  int prefix_len = 0;          // of the input, tokens shared by all prompts
  double range_ratio = 0;      // fixed lengths: uniform in len * [1 - ratio, 1 + ratio]
  double scale = 1;            // multiplies all lengths
  int max_model_len = 0;       // input and output together are cut to it; 0: no limit
  bool token_ids = false;
  int min_token_id = 1000;   // the special tokens of the served families lie below or far above
  int max_token_id = 10000;  // exclusive
  bool ignore_eos = false;
  double temperature = 0;
  uint64_t seed = 0;

  double wait_s = 0;       // for the server to answer
  double timeout_s = 600;  // of a request, between two reads
  std::vector<double> percentiles = {50, 90, 99};
  std::vector<Objective> goodput;                             // all of them must hold
  std::vector<std::pair<std::string, std::string>> metadata;  // copied into the JSON
  std::string output_json;                                    // empty: no file
  bool save_detailed = false;

  int EffectiveConcurrency() const {
    return concurrency == 0 && request_rate == 0 ? 4 : concurrency;
  }
  LengthSpec InputLengths() const;
  LengthSpec OutputLengths() const;
  int PrefixLength() const;
  const std::string& Address() const { return grpc.empty() ? url : grpc; }
};

// `args` without program name and subcommand. Unknown flags, bad numbers and impossible pairs are
// InvalidArgument. A preset counts as given before all other flags.
absl::StatusOr<ServeOptions> ParseServeOptions(std::span<const std::string> args);

std::string ServeHelp();

}  // namespace spin
