// The members that completions and chats share: what is taken, and each refusal with its param.
#include "server/openai/common_request.h"

#include <catch2/catch.hpp>

#include "server/error_mapping.h"
#include "tests/server/parse_request.h"

namespace spin {
namespace {

using testing::ParseCompletionWith;
using testing::TinyModel;

TEST_CASE("every field out of its range is refused by name") {
  struct Row {
    const char* param;
    const char* bad;
  };
  const Row rows[] = {{"temperature", "-0.1"},
                      {"temperature", "2.1"},
                      {"temperature", "\"1\""},
                      {"top_p", "0"},
                      {"top_p", "1.01"},
                      {"top_k", "-2"},
                      {"top_k", "1.5"},
                      {"min_p", "-0.1"},
                      {"min_p", "1.1"},
                      {"presence_penalty", "2.5"},
                      {"frequency_penalty", "-2.5"},
                      {"repetition_penalty", "0"},
                      {"spin_usage", "1"},
                      {"n", "0"},
                      {"n", "129"},
                      {"n", "true"},
                      {"best_of", "2"},
                      {"logprobs", "21"},
                      {"logprobs", "-1"},
                      {"prompt_logprobs", "21"},
                      {"max_tokens", "0"},
                      {"max_tokens", "3000000000"},
                      {"max_completion_tokens", "-1"},
                      {"min_tokens", "-1"},
                      {"min_tokens", "17, \"max_tokens\": 16"},
                      {"seed", "1.5"},
                      {"seed", "\"a\""},
                      {"logit_bias", "[]"},
                      {"logit_bias", "{\"a\":1}"},
                      {"logit_bias", "{\"1000\":1}"},
                      {"logit_bias", "{\"99999999999\":1}"},
                      {"logit_bias", "{\"1\":101}"},
                      {"logit_bias", "{\"1\":\"x\"}"},
                      {"stop", "\"\""},
                      {"stop", "5"},
                      {"stop", "[null]"},
                      {"stop", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"},
                      {"stop_token_ids", "[1000]"},
                      {"stop_token_ids", "7"},
                      {"stream", "1"},
                      {"stream_options", "{}"},
                      {"echo", "\"yes\""},
                      {"ignore_eos", "0"},
                      {"skip_special_tokens", "[]"},
                      {"include_stop_str_in_output", "2"},
                      {"return_token_ids", "{}"},
                      {"priority", "\"high\""},
                      {"truncate_prompt_tokens", "0"},
                      {"truncate_prompt_tokens", "-2"},
                      {"response_format", "{}"},
                      {"model", "7"}};
  for (const Row& row : rows) {
    INFO(row.param << " = " << row.bad);
    const auto parsed = ParseCompletionWith(absl::StrFormat(R"(,"%s":%s)", row.param, row.bad));
    REQUIRE_FALSE(parsed.ok());
    const ApiError error = ToApiError(parsed.status());
    CHECK(error.http_status == 400);
    CHECK(error.type == "invalid_request_error");
    CHECK(error.param == row.param);
    CHECK(error.message.find(row.param) != std::string::npos);
  }
}

TEST_CASE("what this server cannot do is refused as unsupported") {
  for (const char* member :
       {R"("suffix":"x")", R"("response_format":{"type":"json_object"})",
        R"("response_format":{"type":"json_schema","json_schema":{}})", R"("guided_regex":"a*")",
        R"("audio":{})", R"("structured_outputs":{})", R"("use_beam_search":true)",
        R"("kv_transfer_params":{})", R"("cache_salt":"x")"}) {
    INFO(member);
    const auto parsed = ParseCompletionWith(std::string(",") + member);
    REQUIRE_FALSE(parsed.ok());
    CHECK(ToApiError(parsed.status()).code == "unsupported_parameter");
    CHECK_FALSE(ToApiError(parsed.status()).param.empty());
  }
}

TEST_CASE(
    "null is absent, unknown members and those of OpenAI that mean nothing here are ignored") {
  const auto good = ParseCompletionWith(
      R"(,"temperature":null,"n":null,"stop":null,"stream_options":null,"suffix":null,"user":"u","store":true,)"
      R"("metadata":{},"service_tier":"auto","what_is_this":[1,{"a":2}],"response_format":{"type":"text"})");
  REQUIRE(good.ok());
  CHECK(good->common.sampling.temperature == 1.0);
  CHECK(good->common.sampling.n == 1);
}

TEST_CASE("sampling fields arrive where the engine reads them") {
  const auto parsed = ParseCompletionWith(
      R"(,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"presence_penalty":1,"frequency_penalty":-1,)"
      R"("repetition_penalty":1.1,"seed":-3,"n":2,"max_tokens":8,"min_tokens":2,"stop":["a","b"],"stop_token_ids":[5],)"
      R"("logit_bias":{"7":-100},"logprobs":3,"priority":-1,"ignore_eos":true,"skip_special_tokens":false,)"
      R"("include_stop_str_in_output":true,"echo":true,"return_token_ids":true,"spin_usage":true)");
  REQUIRE(parsed.ok());
  const SamplingParams& s = parsed->common.sampling;
  CHECK(s.temperature == 0.5);
  CHECK(s.top_p == 0.9);
  CHECK(s.top_k == 40);
  CHECK(s.min_p == 0.1);
  CHECK(s.presence_penalty == 1);
  CHECK(s.frequency_penalty == -1);
  CHECK(s.repetition_penalty == 1.1);
  CHECK(s.seed == static_cast<uint64_t>(-3));
  CHECK(s.n == 2);
  CHECK(s.max_tokens == 8);
  CHECK(s.min_tokens == 2);
  CHECK(s.stop == std::vector<std::string>{"a", "b"});
  CHECK(s.stop_token_ids == std::vector<int32_t>{5});
  REQUIRE(s.logit_bias.size() == 1);
  CHECK(s.logit_bias[0] == std::pair<int32_t, float>(7, -100.0F));
  CHECK(s.logprobs == 3);
  CHECK(parsed->common.priority == -1);
  CHECK(s.ignore_eos);
  CHECK_FALSE(s.skip_special_tokens);
  CHECK(s.include_stop_str_in_output);
  CHECK(parsed->echo);
  CHECK(parsed->common.return_token_ids);
  CHECK(parsed->common.spin_usage);
  CHECK_FALSE(parsed->common.include_usage);
  CHECK(ParseCompletionWith(R"(,"stream":true,"spin_usage":true)")->common.include_usage);
  CHECK(ParseCompletionWith(R"(,"seed":18446744073709551615)")->common.sampling.seed == UINT64_MAX);
}

TEST_CASE("a request says how much it attends to, in the server's own algorithm") {
  ModelInfo quest = TinyModel();
  quest.algorithm = "quest";
  const auto sparse = [&](const std::string& member) {
    return ParseCompletionWith(",\"sparse\":" + member, quest);
  };
  CHECK_FALSE(ParseCompletionWith("", quest)->common.sparse.given());
  CHECK_FALSE(sparse("null")->common.sparse.given());
  CHECK_FALSE(sparse(R"({"algorithm":"quest"})")->common.sparse.given());
  CHECK(sparse(R"({"budget_tokens":512})")->common.sparse.budget_tokens == 512);
  CHECK(sparse(R"({"exact":true})")->common.sparse.exact);
  CHECK(sparse(R"({"algorithm":"dense"})")->common.sparse.exact);
  for (const char* bad : {"1", "[]", R"({"exact":1})", R"({"budget_tokens":0})",
                          R"({"budget_tokens":"512"})", R"({"algorithm":3})"}) {
    INFO(bad);
    CHECK(absl::IsInvalidArgument(sparse(bad).status()));
    CHECK(ToApiError(sparse(bad).status()).param == "sparse");
  }
  const ApiError both = ToApiError(sparse(R"({"exact":true,"budget_tokens":64})").status());
  CHECK(both.param == "sparse");
  CHECK(both.message == "sparse: exact attention has no budget_tokens; give one of the two");
  const ApiError other = ToApiError(sparse(R"({"algorithm":"shadowkv"})").status());
  CHECK(other.http_status == 400);
  CHECK(other.param == "sparse");
  CHECK(other.message ==
        "sparse: algorithm 'shadowkv' needs another layout of the cache than this server's "
        "'quest'; a request may ask for that or for 'dense'");
}

TEST_CASE("the model's own defaults hold where the client is silent") {
  ModelInfo model = TinyModel();
  model.defaults = {
      .temperature = 0.6, .top_p = 0.95, .min_p = 0.01, .repetition_penalty = 1.05, .top_k = 20};
  const auto parsed = ParseCompletionWith(R"(,"top_p":0.5)", model);
  REQUIRE(parsed.ok());
  CHECK(parsed->common.sampling.temperature == 0.6);
  CHECK(parsed->common.sampling.top_p == 0.5);
  CHECK(parsed->common.sampling.top_k == 20);
  CHECK(parsed->common.sampling.repetition_penalty == 1.05);
}

TEST_CASE("an unknown model is a 404 and the first name is the default") {
  const ApiError error = ToApiError(ParseCompletionWith(R"(,"model":"gpt-4")").status());
  CHECK(error.http_status == 404);
  CHECK(error.code == "model_not_found");
  CHECK(error.param == "model");
  CHECK(ParseCompletionWith(R"(,"model":"tiny")").ok());
  CHECK(ParseCompletionWith(R"(,"model":null)").ok());
}

}  // namespace
}  // namespace spin
