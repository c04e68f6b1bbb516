// Whole-model numerics: log-probabilities and greedy tokens against transformers on small random
// checkpoints of both families (make_golden_models.py records them), through the executor's own
// prefill and decode.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "tests/testing/model_runner.h"

namespace spin {
namespace {

const std::string kData = "tests/models/testdata/golden/";

struct Case {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  float bf16_max_error = 0;
  std::vector<int32_t> greedy;
  std::vector<float> gaps;
};

std::vector<Case> ReadCases(const std::string& model) {
  std::ifstream file(kData + model + "/golden.json");
  REQUIRE(file.good());
  std::vector<Case> cases;
  const nlohmann::json recorded = nlohmann::json::parse(file);
  for (const auto& entry : recorded["cases"]) {
    cases.push_back({entry["tokens"], entry["logprobs"], entry["bf16_max_error"],
                     entry.value("greedy", std::vector<int32_t>()),
                     entry.value("gaps", std::vector<float>())});
  }
  REQUIRE_FALSE(cases.empty());
  return cases;
}

// Greedy tokens must agree wherever the two best differ by more than the tolerance; after a tie
// broken otherwise the continuations may part.
void CheckGreedy(const Case& c, const std::vector<int32_t>& tokens, float tolerance) {
  for (std::size_t i = 0; i < c.greedy.size(); ++i) {
    if (tokens[i] == c.greedy[i]) continue;
    INFO("token " << i);
    CHECK(c.gaps[i] <= tolerance);
    return;
  }
}

void CheckModel(const std::string& model, DType dtype) {
  testing::ModelRunner runner({.folder = kData + model, .dtype = dtype});
  for (const Case& c : ReadCases(model)) {
    INFO(model << ", " << c.tokens.size() << " tokens, " << NameOf(dtype));
    const float tolerance = dtype == DType::kF32 ? 1e-3f : std::max(0.03f, 2 * c.bf16_max_error);
    const std::vector<float> logprobs = runner.Score(c.tokens);
    REQUIRE(logprobs.size() == c.logprobs.size());
    float worst = 0;
    for (std::size_t i = 0; i < logprobs.size(); ++i) {
      worst = std::max(worst, std::abs(logprobs[i] - c.logprobs[i]));
    }
    CHECK(worst <= tolerance);
    if (c.greedy.empty()) continue;
    CheckGreedy(c, runner.Generate({c.tokens}, static_cast<int32_t>(c.greedy.size()))[0],
                tolerance);
  }
}

TEST_CASE("log-probabilities and greedy tokens equal transformers in float32") {
  const std::string model = GENERATE("llama_gqa3_llama3rope", "qwen3_d128_yarn_sharded",
                                     "qwen3_gqa5_tied_f32", "llama_gqa8_f16");
  CheckModel(model, DType::kF32);
}

TEST_CASE("bfloat16 is within twice transformers' own bfloat16 error") {
  const std::string model = GENERATE("llama_gqa3_llama3rope", "qwen3_d128_yarn_sharded",
                                     "qwen3_gqa5_tied_f32", "llama_gqa8_f16");
  CheckModel(model, DType::kBf16);
}

}  // namespace
}  // namespace spin
