#include "tools/bench/lengths.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

namespace spin {
namespace {

std::vector<int> DrawMany(const LengthSpec& spec, int count, uint64_t seed = 7) {
  const LengthSampler sampler(spec);
  Random random(seed);
  std::vector<int> lengths;
  for (int i = 0; i < count; ++i) lengths.push_back(sampler.Draw(random));
  return lengths;
}

double MeanOf(const std::vector<int>& lengths) {
  double sum = 0;
  for (const int length : lengths) sum += length;
  return sum / static_cast<double>(lengths.size());
}

TEST_CASE("Each shape is read and written back") {
  for (const char* text : {"256", "100-400", "normal:1000-4000,mean=2000,std=500",
                           "lognormal:32000-120000,mean=55000,std=20000"}) {
    INFO(text);
    REQUIRE(ParseLengths(text).ok());
    CHECK(ToString(*ParseLengths(text)) == text);
  }
  CHECK(ParseLengths("normal:1000-5000,mean=2000")->stddev == 1000);  // a quarter of the range
}

TEST_CASE("What is no length is refused") {
  for (const char* text : {"",
                           "0",
                           "-5",
                           "5-",
                           "-",
                           "9-8",
                           "1.5",
                           "2000000",
                           "gamma:1-2,mean=1.5",
                           "normal:",
                           "normal:10-20",
                           "normal:10-20,mean=10",
                           "normal:10-20,mean=30",
                           "normal:10-20,mean=",
                           "normal:10-20,mean=x",
                           "normal:10-20,mean",
                           "normal:10-20,",
                           "normal:10-20,mean=15,std=0",
                           "normal:10-20,mean=nan",
                           "normal:10-20,mean=15,skew=1"}) {
    INFO(text);
    CHECK_FALSE(ParseLengths(text).ok());
  }
}

TEST_CASE("Draws keep within their bounds and have the mean that was asked for") {
  for (const char* text :
       {"256", "100-400", "normal:1000-4000,mean=2000", "normal:1000-4000,mean=1100,std=3000",
        "normal:16000-19000,mean=18000", "normal:10-12,mean=11.5,std=0.5",
        "lognormal:32000-120000,mean=55000", "lognormal:500-15000,mean=5000",
        "lognormal:7000-32000,mean=12000", "lognormal:1-100000,mean=99000,std=100"}) {
    INFO(text);
    const LengthSpec spec = *ParseLengths(text);
    const std::vector<int> lengths = DrawMany(spec, 20000);
    const auto [low, high] = std::minmax_element(lengths.begin(), lengths.end());
    CHECK(*low >= spec.low);
    CHECK(*high <= spec.high);
    // Five standard errors of the widest curve.
    CHECK(MeanOf(lengths) == Approx(spec.Mean()).margin(0.01 * (spec.high - spec.low)));
  }
}

TEST_CASE("A wide normal distribution has the spread of its curve, a lognormal one leans right") {
  const auto normal = DrawMany(*ParseLengths("normal:1-20000,mean=10000,std=1000"), 20000);
  double variance = 0;
  for (const int length : normal) variance += std::pow(length - MeanOf(normal), 2) / 20000;
  CHECK(std::sqrt(variance) == Approx(1000).epsilon(0.03));

  auto lognormal = DrawMany(*ParseLengths("lognormal:1-200000,mean=10000,std=10000"), 20000);
  std::nth_element(lognormal.begin(), lognormal.begin() + 10000, lognormal.end());
  CHECK(lognormal[10000] == Approx(10000 / std::sqrt(2)).epsilon(0.03));  // exp(mu)
}

TEST_CASE("The same seed draws the same lengths, and each draw takes one number") {
  const LengthSpec spec = *ParseLengths("lognormal:32000-120000,mean=55000");
  CHECK(DrawMany(spec, 50) == DrawMany(spec, 50));
  CHECK(DrawMany(spec, 50) != DrawMany(spec, 50, 8));
  for (const LengthSpec& one : {LengthSpec(5), LengthSpec::Uniform(1, 9), spec}) {
    Random drawn(3), counted(3);
    LengthSampler(one).Draw(drawn);
    counted.NextU64();
    CHECK(drawn.NextU64() == counted.NextU64());
  }
}

TEST_CASE("Scaling multiplies bounds, mean and spread, and leaves at least one token") {
  const LengthSpec spec = ParseLengths("normal:1000-4000,mean=2000,std=400")->Scaled(0.1);
  CHECK(ToString(spec) == "normal:100-400,mean=200,std=40");
  CHECK(MeanOf(DrawMany(spec, 5000)) == Approx(200).margin(5));
  CHECK(LengthSpec(3).Scaled(0.01).low == 1);
  // Bounds that meet leave one length, whatever the mean.
  CHECK(DrawMany(ParseLengths("normal:1000-4000,mean=2000")->Scaled(0.0001), 3) ==
        std::vector<int>{1, 1, 1});
}

}  // namespace
}  // namespace spin
