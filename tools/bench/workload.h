// The prompts and arrival times of a load test: a pure function of the options and their seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/bench/serve_options.h"

namespace spin {

struct Prompt {
  std::string text;          // words, unless token ids were asked for
  std::vector<int32_t> ids;  // empty with text
  int output_len = 0;        // max_tokens of its request
};

// `count` prompts; the first options.prefix_len tokens are the same in all of them. `stream`
// selects an independent draw (warm-ups must not put the measured prompts into a prefix cache).
std::vector<Prompt> MakePrompts(const ServeOptions& options, int count, uint64_t stream);

// Seconds after the start at which each request is due, the first at 0. The gaps are Gamma variates
// of mean 1 / rate and shape `burstiness`: 1 is a Poisson process, less comes in bursts, more is
// steadier. An infinite rate makes all of them due at once.
std::vector<double> Arrivals(int count, double rate, double burstiness, uint64_t seed);

}  // namespace spin
