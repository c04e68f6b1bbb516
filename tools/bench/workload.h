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

// Seconds after the start at which each request is due: Poisson arrivals of `rate` a second, the
// first at 0.
std::vector<double> PoissonArrivals(int count, double rate, uint64_t seed);

}  // namespace spin
