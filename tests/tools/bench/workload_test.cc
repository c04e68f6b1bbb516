#include "tools/bench/workload.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

namespace spin {
namespace {

auto CountWords(const std::string& text) {
  return std::count(text.begin(), text.end(), ' ') + 1;
}

TEST_CASE("Prompts have the lengths asked for and differ from each other") {
  ServeOptions options;
  options.input_len = 20;
  options.output_len = 5;
  const auto prompts = MakePrompts(options, 3, 0);
  REQUIRE(prompts.size() == 3);
  for (const Prompt& prompt : prompts) {
    CHECK(CountWords(prompt.text) == 20);
    CHECK(prompt.ids.empty());
    CHECK(prompt.output_len == 5);
  }
  CHECK(prompts[0].text != prompts[1].text);
}

TEST_CASE("Token ids lie in their range") {
  ServeOptions options;
  options.token_ids = true;
  options.input_len = 500;
  options.min_token_id = 10;
  options.max_token_id = 320;
  const Prompt prompt = MakePrompts(options, 1, 0)[0];
  CHECK(prompt.text.empty());
  REQUIRE(prompt.ids.size() == 500);
  const auto [low, high] = std::minmax_element(prompt.ids.begin(), prompt.ids.end());
  CHECK((*low >= 10 && *low < 20));
  CHECK((*high < 320 && *high > 300));
}

TEST_CASE("A prompt depends on seed, stream and index alone") {
  ServeOptions options;
  const auto few = MakePrompts(options, 2, 0);
  const auto many = MakePrompts(options, 9, 0);
  CHECK(few[1].text == many[1].text);
  CHECK(MakePrompts(options, 1, 1)[0].text != few[0].text);
  options.seed = 1;
  CHECK(MakePrompts(options, 1, 0)[0].text != few[0].text);
}

TEST_CASE("A shared prefix is shared and the rest is not") {
  ServeOptions options;
  options.token_ids = true;
  options.input_len = 100;
  options.prefix_len = 60;
  const auto prompts = MakePrompts(options, 2, 0);
  CHECK(std::equal(prompts[0].ids.begin(), prompts[0].ids.begin() + 60, prompts[1].ids.begin()));
  CHECK_FALSE(
      std::equal(prompts[0].ids.begin() + 60, prompts[0].ids.end(), prompts[1].ids.begin() + 60));
}

TEST_CASE("Lengths spread over the range asked for and no further") {
  ServeOptions options;
  options.input_len = 100;
  options.output_len = 10;
  options.range_ratio = 0.5;
  long shortest = 1000, longest = 0;
  for (const Prompt& prompt : MakePrompts(options, 300, 0)) {
    shortest = std::min<long>(shortest, CountWords(prompt.text));
    longest = std::max<long>(longest, CountWords(prompt.text));
    CHECK((prompt.output_len >= 5 && prompt.output_len <= 15));
  }
  CHECK((shortest >= 50 && shortest < 60));
  CHECK((longest <= 150 && longest > 140));
}

TEST_CASE("The scale applies to input, output and prefix alike") {
  ServeOptions options;
  options.token_ids = true;
  options.input_len = 1000;
  options.output_len = 200;
  options.prefix_len = 600;
  options.scale = 0.05;
  const auto prompts = MakePrompts(options, 2, 0);
  for (const Prompt& prompt : prompts) {
    CHECK(prompt.ids.size() == 50);
    CHECK(prompt.output_len == 10);
  }
  const auto differ =
      std::mismatch(prompts[0].ids.begin(), prompts[0].ids.end(), prompts[1].ids.begin());
  CHECK(differ.first - prompts[0].ids.begin() >= 30);
  CHECK(differ.first - prompts[0].ids.begin() < 35);
}

TEST_CASE("Input and output are cut to the model's length, the output first") {
  ServeOptions options;
  options.token_ids = true;
  options.max_model_len = 100;
  const auto lengths = [&](int input, int output) {
    options.input_len = input;
    options.output_len = output;
    const Prompt prompt = MakePrompts(options, 1, 0)[0];
    return std::pair(static_cast<int>(prompt.ids.size()), prompt.output_len);
  };
  CHECK(lengths(60, 40) == std::pair(60, 40));
  CHECK(lengths(60, 90) == std::pair(60, 40));
  CHECK(lengths(99, 90) == std::pair(99, 1));
  CHECK(lengths(500, 90) == std::pair(99, 1));
}

// Mean and coefficient of variation of the gaps.
std::pair<double, double> GapsOf(const std::vector<double>& arrivals) {
  double mean = 0, variance = 0;
  const auto count = static_cast<double>(arrivals.size() - 1);
  for (size_t i = 1; i < arrivals.size(); ++i) mean += (arrivals[i] - arrivals[i - 1]) / count;
  for (size_t i = 1; i < arrivals.size(); ++i)
    variance += std::pow(arrivals[i] - arrivals[i - 1] - mean, 2) / count;
  return {mean, std::sqrt(variance) / mean};
}

TEST_CASE("Arrivals are ordered, begin at 0 and come at the rate asked for") {
  const auto arrivals = Arrivals(4000, 8, 1, 5);
  CHECK(arrivals[0] == 0);
  CHECK(std::is_sorted(arrivals.begin(), arrivals.end()));
  CHECK(arrivals.back() == Approx(500).epsilon(0.06));
  // Exponential gaps: about 1 - 1/e of them are shorter than the mean.
  int shorter = 0;
  for (size_t i = 1; i < arrivals.size(); ++i) shorter += arrivals[i] - arrivals[i - 1] < 0.125;
  CHECK(shorter / 3999.0 == Approx(0.632).margin(0.03));
  CHECK(Arrivals(9, 8, 1, 5) == std::vector<double>(arrivals.begin(), arrivals.begin() + 9));
  CHECK(Arrivals(9, 8, 1, 6) != Arrivals(9, 8, 1, 5));
}

TEST_CASE("Burstiness is the shape of the gaps and leaves their mean") {
  // A Gamma distribution of shape k varies by 1 / sqrt(k) of its mean.
  for (const double burstiness : {0.25, 0.8, 1.0, 1.5, 4.0, 100.0}) {
    INFO(burstiness);
    const auto [mean, variation] = GapsOf(Arrivals(40000, 10, burstiness, 1));
    CHECK(mean == Approx(0.1).epsilon(0.04));
    CHECK(variation == Approx(1 / std::sqrt(burstiness)).epsilon(0.04));
  }
}

TEST_CASE("An infinite rate makes all requests due at once") {
  const auto arrivals = Arrivals(5, std::numeric_limits<double>::infinity(), 0.5, 1);
  CHECK(arrivals == std::vector<double>(5, 0.0));
}

}  // namespace
}  // namespace spin
