// Every range of the sampling parameters: the value at the edge passes, the one beyond it names
// its field.
#include "engine/sampling_params.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <functional>

#include "engine/sampling_row.h"
#include "kernels/params.h"

namespace spin {
namespace {

constexpr int32_t kVocab = 100;

using Change = std::function<void(SamplingParams&)>;

std::string ErrorOf(const Change& change) {
  SamplingParams params;
  change(params);
  const absl::Status status = params.Validate(kVocab);
  if (status.ok()) return "";
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  return MessageOf(status);
}

void CheckField(const std::string& field, const Change& change) {
  INFO(field);
  CHECK(ErrorOf(change).rfind(field + ": ", 0) == 0);
}

TEST_CASE("defaults and edges of the ranges are valid") {
  CHECK(ErrorOf([](SamplingParams&) {}).empty());
  CHECK(ErrorOf([](SamplingParams& p) {
          p.n = kMaxN;
          p.temperature = 2;
          p.top_p = 1;
          p.top_k = -1;
          p.min_p = 1;
          p.presence_penalty = -2;
          p.frequency_penalty = 2;
          p.repetition_penalty = 0.01;
          p.logit_bias = {{0, -100.0f}, {kVocab - 1, 100.0f}};
          p.max_tokens = 5;
          p.min_tokens = 5;
          p.stop.assign(kMaxStopStrings, std::string(kMaxStopStringBytes, 'x'));
          p.stop_token_ids.assign(kMaxStopTokens, kVocab - 1);
          p.logprobs = kMaxLogprobs;
          p.prompt_logprobs = 0;
        }).empty());
}

TEST_CASE("what is out of range is refused with the field's name") {
  CheckField("n", [](SamplingParams& p) { p.n = 0; });
  CheckField("n", [](SamplingParams& p) { p.n = kMaxN + 1; });
  CheckField("temperature", [](SamplingParams& p) { p.temperature = -0.1; });
  CheckField("temperature", [](SamplingParams& p) { p.temperature = 2.1; });
  CheckField("temperature", [](SamplingParams& p) { p.temperature = std::nan(""); });
  CheckField("top_p", [](SamplingParams& p) { p.top_p = 0; });
  CheckField("top_p", [](SamplingParams& p) { p.top_p = 1.01; });
  CheckField("top_k", [](SamplingParams& p) { p.top_k = -2; });
  CheckField("min_p", [](SamplingParams& p) { p.min_p = 1.5; });
  CheckField("presence_penalty", [](SamplingParams& p) { p.presence_penalty = 2.5; });
  CheckField("frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = -2.5; });
  CheckField("repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 0; });
  CheckField("repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 1001; });
  CheckField("repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = INFINITY; });
  CheckField("logit_bias", [](SamplingParams& p) { p.logit_bias = {{kVocab, 1.0f}}; });
  CheckField("logit_bias", [](SamplingParams& p) { p.logit_bias = {{1, 100.5f}}; });
  CheckField("logit_bias", [](SamplingParams& p) {
    p.logit_bias.assign(kMaxLogitBias + 1, {1, 0.0f});
  });
  CheckField("max_tokens", [](SamplingParams& p) { p.max_tokens = -1; });
  CheckField("max_tokens", [](SamplingParams& p) { p.max_tokens = 0; });
  CheckField("min_tokens", [](SamplingParams& p) { p.min_tokens = -1; });
  CheckField("min_tokens", [](SamplingParams& p) {
    p.max_tokens = 3;
    p.min_tokens = 4;
  });
  CheckField("stop", [](SamplingParams& p) { p.stop = {""}; });
  CheckField("stop", [](SamplingParams& p) { p.stop.assign(kMaxStopStrings + 1, "x"); });
  CheckField("stop", [](SamplingParams& p) { p.stop = {std::string(1025, 'x')}; });
  CheckField("stop_token_ids", [](SamplingParams& p) { p.stop_token_ids = {-1}; });
  CheckField("stop_token_ids",
             [](SamplingParams& p) { p.stop_token_ids.assign(kMaxStopTokens + 1, 1); });
  CheckField("logprobs", [](SamplingParams& p) { p.logprobs = 21; });
  CheckField("prompt_logprobs", [](SamplingParams& p) { p.prompt_logprobs = -1; });
}

TEST_CASE("no tokens may be asked for only where the prompt is scored") {
  CHECK(ErrorOf([](SamplingParams& p) {
          p.max_tokens = 0;
          p.prompt_logprobs = 1;
        }).empty());
}

TEST_CASE("a sampling row carries the parameters, its stop tokens once each") {
  SamplingParams params;
  params.temperature = 0.5;
  params.top_k = -1;
  params.min_tokens = 2;
  params.stop_token_ids = {7, 3};
  params.logit_bias = {{5, -1.5f}};
  params.logprobs = 4;
  SamplingRow row;
  row.num_bias = 9;  // left from another request
  const int32_t eos[] = {3, 4};
  FillSamplingRow(params, 99, 12, eos, row);
  CHECK(row.temperature == 0.5f);
  CHECK(row.top_k == 0);
  CHECK(row.seed == 99);
  CHECK(row.prompt_tokens == 12);
  CHECK(row.num_logprobs == 4);
  REQUIRE(row.num_stop_tokens == 3);
  CHECK(row.stop_tokens[0] == 3);
  CHECK(row.stop_tokens[1] == 4);
  CHECK(row.stop_tokens[2] == 7);
  REQUIRE(row.num_bias == 1);
  CHECK(row.bias_token[0] == 5);
  CHECK(row.bias[0] == -1.5f);
  params.ignore_eos = true;
  FillSamplingRow(params, 99, 12, eos, row);
  CHECK(row.num_stop_tokens == 2);
}

TEST_CASE(
    "seeds: the client's own for the first sequence, others derived, absent ones by request") {
  SamplingParams params;
  CHECK(RequestSeed(params, RequestId{1}, 5) == RequestSeed(params, RequestId{1}, 5));
  CHECK(RequestSeed(params, RequestId{1}, 5) != RequestSeed(params, RequestId{2}, 5));
  CHECK(RequestSeed(params, RequestId{1}, 5) != RequestSeed(params, RequestId{1}, 6));
  params.seed = 42;
  CHECK(RequestSeed(params, RequestId{1}, 5) == 42);
  CHECK(SequenceSeed(42, 0) == 42);
  CHECK(SequenceSeed(42, 1) != SequenceSeed(42, 2));
  CHECK(SequenceSeed(42, 1) != 42);
}

}  // namespace
}  // namespace spin
