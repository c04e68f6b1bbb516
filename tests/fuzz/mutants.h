// Seeded mutants of valid files, and how many of them are tried.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/random.h"

namespace spin::testing {

// A few bytes changed, cut, doubled, or replaced by what is delicate in JSON.
std::string MutateBytes(std::string text, Random& random);

// Runs `body` (true: taken, false: refused) over what `mutant` makes of each seed: some thousands, or with
// SPIN_FUZZ_SECONDS in the environment for so long. Fails where nearly all are taken, or not more than `least_taken`
// of 5,000: the mutations are then too weak or too strong.
void RunMutants(const std::function<std::string(Random&)>& mutant, bool (*body)(std::string_view),
                int64_t least_taken);

}  // namespace spin::testing
