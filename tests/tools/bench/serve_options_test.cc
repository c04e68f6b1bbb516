#include "tools/bench/serve_options.h"

#include <catch2/catch.hpp>
#include <cmath>

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

TEST_CASE("Lengths are numbers or distributions, spread and scaled") {
  CHECK(ToString(Parse({"--input-len", "100-300"})->InputLengths()) == "100-300");
  CHECK(ToString(Parse({"--output-len", "100", "--range-ratio", "0.255"})->OutputLengths()) ==
        "75-125");
  const auto scaled = Parse({"--input-len", "1000", "--prefix-len", "600", "--scale", "0.5"});
  CHECK(ToString(scaled->InputLengths()) == "500");
  CHECK(ToString(scaled->OutputLengths()) == "32");
  CHECK(scaled->PrefixLength() == 300);
}

TEST_CASE("A preset sets what no other flag does, wherever it stands") {
  const auto preset = Parse({"--preset", "longbench-v2"});
  REQUIRE(preset.ok());
  CHECK((preset->input_len.low == 32000 && preset->input_len.high == 120000));
  CHECK((preset->input_len.Mean() == 55000 && preset->output_len.Mean() == 5000));
  CHECK(preset->ignore_eos);
  for (const auto& args : {std::vector<std::string>{"--output-len", "9", "--preset=longgenbench"},
                           {"--preset=longgenbench", "--output-len", "9"}}) {
    CHECK(ToString(Parse(args)->input_len) == "normal:16000-19000,mean=18000,std=750");
    CHECK(ToString(Parse(args)->output_len) == "9");
  }
}

TEST_CASE("Objectives come one by one or as a list") {
  const auto options = Parse({"--goodput", "ttft:2000", "--goodput=tpot:50.5,e2el:1e5"});
  REQUIRE(options.ok());
  REQUIRE(options->goodput.size() == 3);
  CHECK((options->goodput[0].metric == "ttft" && options->goodput[0].limit_ms == 2000));
  CHECK((options->goodput[1].metric == "tpot" && options->goodput[1].limit_ms == 50.5));
  CHECK((options->goodput[2].metric == "e2el" && options->goodput[2].limit_ms == 1e5));
}

TEST_CASE("Arrivals can be bursts or all at once") {
  CHECK(std::isinf(Parse({"--request-rate", "inf"})->request_rate));
  CHECK(Parse({"--request-rate", "inf"})->EffectiveConcurrency() == 0);
  CHECK(Parse({"--request-rate", "2", "--burstiness", "0.3"})->burstiness == 0.3);
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
  CHECK_THAT(message_of({"--input-len", "many"}), Contains("--input-len: 'many'"));
  CHECK_THAT(message_of({"--preset", "alpaca"}), Contains("--preset: 'alpaca'"));
  CHECK_THAT(message_of({"--goodput", "itl:5"}), Contains("--goodput: 'itl:5'"));
  CHECK_THAT(message_of({"--goodput", "ttft"}), Contains("--goodput: ''"));
  CHECK_THAT(message_of({"--goodput", "ttft:x"}), Contains("--goodput: 'x'"));
  CHECK_THAT(message_of({"--metadata", "x"}), Contains("--metadata: 'x' is not KEY=VALUE"));
  CHECK_THAT(message_of({"--burstiness", "2"}), Contains("goes with --request-rate"));
  CHECK_THAT(message_of({"--grpc", "h:1", "--chat"}), Contains("leave out --grpc"));
  CHECK_THAT(message_of({"--min-token-id", "9", "--max-token-id", "9"}), Contains("not below"));
  CHECK_THAT(message_of({"--range-ratio", "0.1", "--input-len", "1-2", "--output-len", "1-2"}),
             Contains("spreads fixed lengths"));
}

TEST_CASE("The help names every flag once") {
  const std::string help = ServeHelp();
  for (const char* flag : {"--url ", "--chat ", "--request-rate ", "--token-ids ", "--output-json ",
                           "--grpc ", "--goodput ", "--preset ", "--scale ", "--burstiness "}) {
    const size_t row = help.find(std::string("\n  ") + flag);
    INFO(flag);
    REQUIRE(row != help.npos);
    CHECK(help.find(std::string("\n  ") + flag, row + 1) == help.npos);
  }
}

}  // namespace
}  // namespace spin
