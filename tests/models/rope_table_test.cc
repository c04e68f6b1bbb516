// Rotary frequencies against transformers 5.23's own (ROPE_INIT_FUNCTIONS of modeling_rope_utils in
// float32, max_position_embeddings 131072), recorded below.
#include "models/rope_table.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <utility>

namespace spin {
namespace {

struct Recorded {
  RopeConfig rope;
  int32_t head_dim;
  double attention_factor;
  std::vector<std::pair<int, double>> inv_freq;
};

RopeConfig Rope(RopeScaling scaling, double theta, double factor, double original) {
  RopeConfig rope;
  rope.scaling = scaling;
  rope.theta = theta;
  rope.factor = factor;
  rope.original_max_position = original;
  return rope;
}

const RopeConfig kLlama3 = Rope(RopeScaling::kLlama3, 500000, 8, 8192);
const RopeConfig kYarn = Rope(RopeScaling::kYarn, 1000000, 4, 32768);
const RopeConfig kLinear = Rope(RopeScaling::kLinear, 10000, 4, 131072);

const std::vector<Recorded>& Cases() {
  static const std::vector<Recorded> cases = {
      {kLlama3,
       64,
       1.0,
       {{0, 1.0},
        {1, 0.663601279},
        {8, 0.0376060307},
        {16, 0.000524846022},
        {18, 7.78465546e-05},
        {22, 1.50962178e-05},
        {31, 3.7673226e-07}}},
      {kLlama3,
       128,
       1.0,
       {{0, 1.0},
        {1, 0.814617217},
        {16, 0.0376060307},
        {32, 0.000524846022},
        {34, 0.000178507791},
        {38, 5.16590699e-05},
        {63, 3.06892588e-07}}},
      {kYarn,
       64,
       1.138629436111989,
       {{0, 1.0},
        {1, 0.649381638},
        {8, 0.0316227786},
        {16, 0.000583333371},
        {18, 0.000175706868},
        {22, 1.87473561e-05},
        {31, 3.84981632e-07}}},
      {kYarn,
       128,
       1.138629436111989,
       {{0, 1.0},
        {1, 0.805842221},
        {16, 0.0316227786},
        {32, 0.000602941145},
        {34, 0.000334240554},
        {38, 9.26230132e-05},
        {63, 3.10234441e-07}}},
      {kLinear,
       64,
       1.0,
       {{0, 0.25},
        {1, 0.18747355},
        {8, 0.0250000004},
        {16, 0.00249999994},
        {18, 0.00140585331},
        {22, 0.000444569858},
        {31, 3.33380376e-05}}},
      {kLinear,
       128,
       1.0,
       {{0, 0.25},
        {1, 0.216491088},
        {16, 0.0250000004},
        {32, 0.00249999994},
        {34, 0.00187473558},
        {38, 0.00105424121},
        {63, 2.88695483e-05}}},
  };
  return cases;
}

TEST_CASE("Frequencies equal transformers'") {
  for (const Recorded& recorded : Cases()) {
    INFO("scaling " << static_cast<int>(recorded.rope.scaling) << ", d " << recorded.head_dim);
    const RopeFrequencies ours = ComputeRopeFrequencies(recorded.rope, recorded.head_dim);
    REQUIRE(ours.inv_freq.size() == static_cast<std::size_t>(recorded.head_dim / 2));
    CHECK(ours.attention_factor == Approx(recorded.attention_factor).epsilon(1e-9));
    for (const auto& [i, freq] : recorded.inv_freq) {
      INFO("pair " << i);
      CHECK(ours.inv_freq[i] == Approx(freq).epsilon(2e-6));
    }
  }
}

TEST_CASE("The table holds cosines, then sines, times the attention factor") {
  const RopeFrequencies frequencies = ComputeRopeFrequencies(kYarn, 64);
  const std::vector<float> table = BuildRopeTable(kYarn, 64, 100);
  REQUIRE(table.size() == 6400);
  for (const int position : {0, 1, 99}) {
    for (const int i : {0, 5, 31}) {
      const double angle = position * frequencies.inv_freq[i];
      CHECK(table[position * 64 + i] == Approx(std::cos(angle) * frequencies.attention_factor));
      CHECK(table[position * 64 + 32 + i] ==
            Approx(std::sin(angle) * frequencies.attention_factor).margin(1e-9));
    }
  }
}

}  // namespace
}  // namespace spin
