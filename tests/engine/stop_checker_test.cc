// Each rule of stopping, and what text and tokens the client gets when it applies.
#include "engine/stop_checker.h"

#include <catch2/catch.hpp>

#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

constexpr int32_t kEos = 0;
const int32_t kEosTokens[] = {kEos};

SequenceDelta Run(const SamplingParams& sampling, int32_t max_tokens,
                  const std::vector<int32_t>& tokens) {
  static const FakeTokenizer tokenizer(100);
  StopChecker checker(&tokenizer, sampling, kEosTokens, max_tokens);
  SequenceDelta all;
  for (const int32_t token : tokens) {
    REQUIRE(all.finish == FinishReason::kNone);
    SampledToken sampled;
    sampled.token = token;
    checker.Push(sampled, all);
  }
  return all;
}

TEST_CASE("the model's end of sequence stops; its text is left out and no stop token is named") {
  const SequenceDelta delta = Run({}, 10, {5, 6, kEos});
  CHECK(delta.finish == FinishReason::kStop);
  CHECK(delta.text == " 5 6");
  CHECK(delta.tokens.size() == 3);
  CHECK_FALSE(delta.stop_token.has_value());
}

TEST_CASE("ignore_eos goes on through the end of sequence") {
  SamplingParams sampling;
  sampling.ignore_eos = true;
  const SequenceDelta delta = Run(sampling, 10, {5, kEos, 6});
  CHECK(delta.finish == FinishReason::kNone);
  CHECK(delta.text == " 5 6");
}

TEST_CASE("a stop token is named, and its text is there only on request") {
  SamplingParams sampling;
  sampling.stop_token_ids = {7};
  SequenceDelta delta = Run(sampling, 10, {5, 7});
  CHECK(delta.finish == FinishReason::kStop);
  CHECK(delta.stop_token == 7);
  CHECK(delta.text == " 5");
  sampling.include_stop_str_in_output = true;
  delta = Run(sampling, 10, {5, 7});
  CHECK(delta.text == " 5 7");
}

TEST_CASE("min_tokens holds stop tokens back until so many were generated") {
  SamplingParams sampling;
  sampling.stop_token_ids = {7};
  sampling.min_tokens = 2;
  CHECK(Run(sampling, 10, {7, 7}).finish == FinishReason::kNone);
  const SequenceDelta delta = Run(sampling, 10, {7, 7, 7});
  CHECK(delta.finish == FinishReason::kStop);
  CHECK(delta.text == " 7 7");
}

TEST_CASE("a stop string cuts the text and is named, also across tokens") {
  SamplingParams sampling;
  sampling.stop = {"6 7", "zz"};
  SequenceDelta delta = Run(sampling, 10, {5, 6, 7});
  CHECK(delta.finish == FinishReason::kStop);
  CHECK(delta.stop_string == "6 7");
  CHECK(delta.text == " 5 ");
  sampling.include_stop_str_in_output = true;
  delta = Run(sampling, 10, {5, 6, 7});
  CHECK(delta.text == " 5 6 7");
}

TEST_CASE("what may become a stop string is held back, and released when it does not") {
  SamplingParams sampling;
  sampling.stop = {"6 7"};
  CHECK(Run(sampling, 10, {5, 6}).text == " 5 ");
  CHECK(Run(sampling, 10, {5, 6, 8}).text == " 5 6 8");
}

TEST_CASE("the length ends a sequence and releases held text; a stop at the same token wins") {
  SamplingParams sampling;
  sampling.stop = {"6 7"};
  SequenceDelta delta = Run(sampling, 2, {5, 6});
  CHECK(delta.finish == FinishReason::kLength);
  CHECK(delta.text == " 5 6");
  delta = Run(sampling, 3, {5, 6, 7});
  CHECK(delta.finish == FinishReason::kStop);
  delta = Run(sampling, 2, {5, kEos});
  CHECK(delta.finish == FinishReason::kStop);
}

TEST_CASE("without a tokenizer tokens flow and text is empty") {
  const SamplingParams sampling;
  StopChecker checker(nullptr, sampling, kEosTokens, 2);
  SequenceDelta delta;
  SampledToken token;
  token.token = 5;
  checker.Push(token, delta);
  checker.Push(token, delta);
  CHECK(delta.text.empty());
  CHECK(delta.tokens.size() == 2);
  CHECK(delta.finish == FinishReason::kLength);
}

TEST_CASE("a lowered limit ends the sequence at the token in flight") {
  const FakeTokenizer tokenizer(100);
  const SamplingParams sampling;
  StopChecker checker(&tokenizer, sampling, kEosTokens, 100);
  SequenceDelta delta;
  SampledToken token;
  token.token = 5;
  checker.Push(token, delta);
  checker.LimitTokens(2);
  CHECK(delta.finish == FinishReason::kNone);
  checker.Push(token, delta);
  CHECK(delta.finish == FinishReason::kLength);
}

}  // namespace
}  // namespace spin
