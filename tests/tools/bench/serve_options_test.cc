#include "tools/bench/serve_options.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

absl::StatusOr<ServeOptions> Parse(const std::vector<std::string>& args) {
  return ParseServeOptions(args);
}

TEST_CASE("Flags are read with a space or an equals sign") {
  const auto options = Parse({"--url", "http://h:1", "--concurrency=7", "--request-rate", "2.5",
                              "--chat", "--percentiles", "50,99.9", "--seed=3"});
  REQUIRE(options.ok());
  CHECK(options->url == "http://h:1");
  CHECK(options->concurrency == 7);
  CHECK(options->request_rate == 2.5);
  CHECK(options->chat);
  CHECK(options->percentiles == std::vector<double>{50, 99.9});
  CHECK(options->seed == 3);
}

TEST_CASE("A closed loop has four clients unless told otherwise, an open one no cap") {
  CHECK(Parse({})->EffectiveConcurrency() == 4);
  CHECK(Parse({"--request-rate", "1"})->EffectiveConcurrency() == 0);
}

TEST_CASE("Bad flags are refused with their name") {
  const auto message_of = [](const std::vector<std::string>& args) {
    const auto options = Parse(args);
    REQUIRE_FALSE(options.ok());
    return MessageOf(options.status());
  };
  using Catch::Contains;
  CHECK_THAT(message_of({"--nonsense"}), Contains("unknown argument '--nonsense'"));
  CHECK_THAT(message_of({"stray"}), Contains("unknown argument 'stray'"));
  CHECK_THAT(message_of({"--url"}), Contains("--url needs a value"));
  CHECK_THAT(message_of({"--chat=yes"}), Contains("--chat takes no value"));
  CHECK_THAT(message_of({"--num-prompts", "0"}),
             Contains("--num-prompts: '0' is not a number from 1"));
  CHECK_THAT(message_of({"--num-prompts", "4x"}), Contains("--num-prompts: '4x'"));
  CHECK_THAT(message_of({"--request-rate", "nan"}), Contains("--request-rate: 'nan'"));
  CHECK_THAT(message_of({"--percentiles", "50,"}), Contains("--percentiles: ''"));
  CHECK_THAT(message_of({"--chat", "--token-ids"}), Contains("leave out --chat"));
  CHECK_THAT(message_of({"--prefix-len", "9", "--input-len", "8"}),
             Contains("longer than --input-len 8"));
}

TEST_CASE("The help names every flag once") {
  const std::string help = ServeHelp();
  for (const char* flag :
       {"--url ", "--chat ", "--request-rate ", "--token-ids ", "--output-json "}) {
    const size_t row = help.find(std::string("\n  ") + flag);
    INFO(flag);
    REQUIRE(row != help.npos);
    CHECK(help.find(std::string("\n  ") + flag, row + 1) == help.npos);
  }
}

}  // namespace
}  // namespace spin
