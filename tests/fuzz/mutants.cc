#include "tests/fuzz/mutants.h"

#include <catch2/catch.hpp>

#include <chrono>
#include <cstdlib>
#include <iterator>

namespace spin::testing {

std::string MutateBytes(std::string text, Random& random) {
  static constexpr std::string_view kPieces[] = {
      "-1",   "1e999", "18446744073709551615", "null", "[", "]", "{", "}", "\"", ",", ":", "\\",
      "true", "0",     "4294967296",           "0.5",  "-", "e"};
  for (uint32_t n = 1 + random.Below(4); n > 0 && !text.empty(); --n) {
    const uint32_t at = random.Below(text.size());
    switch (random.Below(6)) {
      case 0:
        text[at] = static_cast<char>(random.Below(256));
        break;
      case 1:
        text.erase(at, 1 + random.Below(40));
        break;
      case 2:
        text.insert(at, text.substr(random.Below(text.size()), random.Below(60)));
        break;
      case 3:
        text.replace(at, 1 + random.Below(4), kPieces[random.Below(std::size(kPieces))]);
        break;
      case 4:
        text[at] = static_cast<char>('0' + random.Below(10));
        break;
      default:
        text.resize(at);
    }
  }
  return text;
}

void RunMutants(const std::function<std::string(Random&)>& mutant, bool (*body)(std::string_view),
                int64_t least_taken) {
  using Clock = std::chrono::steady_clock;
  const char* seconds = std::getenv("SPIN_FUZZ_SECONDS");
  const auto end = Clock::now() + std::chrono::seconds(seconds == nullptr ? 0 : std::atoi(seconds));
  int64_t taken = 0, refused = 0;
  for (uint64_t seed = 1; seed <= 5000 || Clock::now() < end; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    (body(mutant(random)) ? taken : refused)++;
  }
  CHECK(taken > least_taken);
  CHECK(refused > 1000);
}

}  // namespace spin::testing
