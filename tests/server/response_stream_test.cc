// The bounded buffer between the engine and a connection.
#include "server/response_stream.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

namespace spin {
namespace {

RequestOutput Numbered(int32_t number) {
  RequestOutput output;
  output.cached_prompt_tokens = number;
  return output;
}

TEST_CASE("outputs come out in order, and the consumer is woken once a batch") {
  int wakes = 0;
  ResponseStream stream(4, [&] { ++wakes; });
  CHECK_FALSE(stream.TryPop().has_value());
  CHECK(stream.OnOutput(Numbered(1)));
  CHECK(stream.OnOutput(Numbered(2)));
  CHECK(wakes == 1);
  CHECK(stream.TryPop()->cached_prompt_tokens == 1);
  CHECK(stream.TryPop()->cached_prompt_tokens == 2);
  CHECK(stream.OnOutput(Numbered(3)));
  CHECK(wakes == 2);
}

TEST_CASE("a full buffer gives the request up and keeps what it has") {
  ResponseStream stream(2, nullptr);
  CHECK(stream.OnOutput(Numbered(1)));
  CHECK(stream.OnOutput(Numbered(2)));
  CHECK_FALSE(stream.overflowed());
  CHECK_FALSE(stream.OnOutput(Numbered(3)));
  CHECK(stream.overflowed());
  CHECK(stream.TryPop()->cached_prompt_tokens == 1);
  CHECK_FALSE(stream.OnOutput(Numbered(4)));  // a gap must not be papered over
}

TEST_CASE("after Close nothing is taken and nobody is woken") {
  int wakes = 0;
  ResponseStream stream(2, [&] { ++wakes; });
  stream.Close();
  CHECK_FALSE(stream.OnOutput(Numbered(1)));
  CHECK(wakes == 0);
  CHECK_FALSE(stream.TryPop().has_value());
}

TEST_CASE("one thread pushes while another pops and closes") {
  constexpr int kOutputs = 20'000;
  std::atomic<int> wakes{0};
  ResponseStream stream(kOutputs, [&] { ++wakes; });
  std::thread engine([&] {
    for (int i = 0; i < kOutputs; ++i) {
      if (!stream.OnOutput(Numbered(i))) return;
    }
  });
  int next = 0;
  while (next < kOutputs / 2) {
    const auto output = stream.TryPop();
    if (output.has_value()) REQUIRE(output->cached_prompt_tokens == next++);
  }
  stream.Close();
  const int wakes_at_close = wakes;
  engine.join();
  CHECK(wakes == wakes_at_close);
}

}  // namespace
}  // namespace spin
