// What a prefill says of a prompt depends on neither the prompts that share its batch nor what is asked of them: behind
// the last layer's keys and values the tokens that are computed are few, and others for each batch.
#include <catch2/catch.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

// On the CPU to the bit; a GPU's products of other sizes round otherwise.
float Tolerance() {
  return TestDevice() == "cuda" ? 1e-3f : 0;
}

void CheckSame(const ScoredPrompt& a, const ScoredPrompt& b) {
  REQUIRE(a.logprobs.size() == b.logprobs.size());
  for (std::size_t i = 0; i < a.logprobs.size(); ++i) {
    CHECK(std::abs(a.logprobs[i] - b.logprobs[i]) <= Tolerance());
  }
  CHECK(a.next.token == b.next.token);
  CHECK(std::abs(a.next.logprob - b.next.logprob) <= Tolerance());
}

TEST_CASE("A prompt's log-probabilities and next token are its own") {
  const std::string folder = GENERATE(kLlama, kQwen3);
  ModelRunnerOptions options = SmallRunner(folder);
  options.tile_tokens = 64;
  // Within a tile, over many, ending with one, of one token.
  const std::vector<std::vector<int32_t>> prompts = {RandomPrompt(20, 1), RandomPrompt(300, 2),
                                                     RandomPrompt(64, 3), RandomPrompt(1, 4),
                                                     RandomPrompt(150, 5)};
  ModelRunner runner(options);
  std::vector<ScoredPrompt> alone;
  for (const auto& prompt : prompts) alone.push_back(runner.ScoreBatch({prompt}, {true})[0]);
  for (unsigned mask = 0; mask < 1u << prompts.size(); ++mask) {
    INFO("mask " << mask);
    std::vector<bool> wanted;
    for (std::size_t i = 0; i < prompts.size(); ++i) wanted.push_back(mask >> i & 1);
    const std::vector<ScoredPrompt> scored = runner.ScoreBatch(prompts, wanted);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      ScoredPrompt expected = alone[i];
      if (!wanted[i]) expected.logprobs.clear();
      CheckSame(scored[i], expected);
    }
  }
}

}  // namespace
}  // namespace spin::testing
