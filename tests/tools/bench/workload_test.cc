#include "tools/bench/workload.h"

#include <algorithm>
#include <catch2/catch.hpp>

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
  options.max_token_id = 2000;
  const Prompt prompt = MakePrompts(options, 1, 0)[0];
  CHECK(prompt.text.empty());
  REQUIRE(prompt.ids.size() == 500);
  const auto [low, high] = std::minmax_element(prompt.ids.begin(), prompt.ids.end());
  CHECK(*low >= 1000);
  CHECK(*high < 2000);
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

TEST_CASE("Arrivals are ordered, begin at 0 and come at the rate asked for") {
  const auto arrivals = PoissonArrivals(4000, 8, 5);
  CHECK(arrivals[0] == 0);
  CHECK(std::is_sorted(arrivals.begin(), arrivals.end()));
  CHECK(arrivals.back() == Approx(500).epsilon(0.06));
  // Exponential gaps: about 1 - 1/e of them are shorter than the mean.
  int shorter = 0;
  for (size_t i = 1; i < arrivals.size(); ++i) shorter += arrivals[i] - arrivals[i - 1] < 0.125;
  CHECK(shorter / 3999.0 == Approx(0.632).margin(0.03));
}

}  // namespace
}  // namespace spin
