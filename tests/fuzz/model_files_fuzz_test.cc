// Goal: no safetensors file, no file of gates and no config.json, however broken, crashes; it is taken or refused
// with a message. Method: seeded mutations of small valid files; with SPIN_FUZZ_SECONDS set, for so
// long.
#include <catch2/catch.hpp>

#include <chrono>
#include <cstdlib>
#include <string>

#include "common/random.h"
#include "tests/fuzz/model_files_fuzz.h"
#include "tests/models/checkpoint_files.h"
#include "tests/models/seer_gates_file.h"

namespace spin {
namespace {

std::string Mutate(std::string text, Random& random) {
  static const std::string kPieces[] = {
      "-1",   "1e999", "18446744073709551615", "null", "[", "]", "{", "}", "\"", ",",
      "true", "0",     "4294967296",           "0.5"};
  for (uint32_t n = 1 + random.Below(3); n > 0 && !text.empty(); --n) {
    const uint32_t at = random.Below(text.size());
    switch (random.Below(5)) {
      case 0:
        text[at] = static_cast<char>(random.Below(256));
        break;
      case 1:
        text.erase(at, 1 + random.Below(12));
        break;
      case 2:
        text.insert(at, text.substr(random.Below(text.size()), random.Below(40)));
        break;
      case 3:
        text.replace(at, 1 + random.Below(4), kPieces[random.Below(std::size(kPieces))]);
        break;
      default:
        text.replace(at, 1, std::string(1, static_cast<char>('0' + random.Below(10))));
    }
  }
  return text;
}

// Runs `body` over mutants of `good`, a few thousand or as long as the environment says.
void RunMutants(const std::string& good, bool (*body)(std::string_view)) {
  using Clock = std::chrono::steady_clock;
  REQUIRE(body(good));
  const char* seconds = std::getenv("SPIN_FUZZ_SECONDS");
  const auto end = Clock::now() + std::chrono::seconds(seconds == nullptr ? 0 : std::atoi(seconds));
  int64_t taken = 0, refused = 0;
  for (uint64_t seed = 1; seed <= 5000 || Clock::now() < end; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    (body(Mutate(good, random)) ? taken : refused)++;
  }
  // Both ways are well trodden, else the mutations are too weak or too strong.
  CHECK(taken > 100);
  CHECK(refused > 1000);
}

TEST_CASE("Thousands of broken safetensors files are taken or refused, never a crash") {
  RunMutants(testing::SmallSafetensors(), &FuzzSafetensors);
}

TEST_CASE("Thousands of broken config.json files are taken or refused, never a crash") {
  RunMutants(testing::SmallConfig().dump(), &FuzzModelConfig);
}

TEST_CASE("Thousands of broken files of gates are taken or refused, never a crash") {
  RunMutants(testing::MakeSeerGates(kFuzzGatesModel).Bytes(), &FuzzSeerGates);
}

}  // namespace
}  // namespace spin
