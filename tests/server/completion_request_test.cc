// Bodies of /v1/completions: what is taken, and each refusal with its param.
#include "server/openai/completion_request.h"

#include <catch2/catch.hpp>

#include "server/error_mapping.h"
#include "tests/server/parse_request.h"

namespace spin {
namespace {

using testing::ParseCompletionWith;
using testing::TinyModel;

TEST_CASE("prompts come as text, texts, token ids and lists of token ids") {
  const auto parse = [](const std::string& prompt) {
    return ParseCompletionRequest(*ParseJsonBody(R"({"prompt":)" + prompt + "}"), TinyModel());
  };
  CHECK(std::get<std::string>(parse(R"("a")")->prompts.at(0)) == "a");
  CHECK(std::get<std::string>(parse(R"(["a","b"])")->prompts.at(1)) == "b");
  CHECK(std::get<std::vector<int32_t>>(parse("[1,2.0,999]")->prompts.at(0)) ==
        std::vector<int32_t>{1, 2, 999});
  CHECK(std::get<std::vector<int32_t>>(parse("[[1],[2,3]]")->prompts.at(1)) ==
        std::vector<int32_t>{2, 3});
  for (const char* bad :
       {"[]", "[1000]", "[-1]", "[1,\"a\"]", "[1.5]", "5", "{}", "[[1],2]", "[true]", "[[1000]]"}) {
    INFO(bad);
    const auto parsed = parse(bad);
    REQUIRE_FALSE(parsed.ok());
    CHECK(ToApiError(parsed.status()).param == "prompt");
    CHECK(ToApiError(parsed.status()).http_status == 400);
  }
}

TEST_CASE("a missing or null prompt is a missing parameter") {
  for (const char* body : {"{}", R"({"prompt":null})"}) {
    const ApiError error =
        ToApiError(ParseCompletionRequest(*ParseJsonBody(body), TinyModel()).status());
    CHECK(error.param == "prompt");
    CHECK(error.code == "missing_required_parameter");
  }
}

TEST_CASE("max_completion_tokens wins, 16 is the default, 0 needs echo") {
  CHECK(ParseCompletionWith("")->common.sampling.max_tokens == 16);
  CHECK(ParseCompletionWith("")->max_tokens_defaulted);
  CHECK(ParseCompletionWith(R"(,"min_tokens":20)")->common.sampling.max_tokens == 20);
  CHECK(ParseCompletionWith(R"(,"max_tokens":3,"max_completion_tokens":4.0)")
            ->common.sampling.max_tokens == 4);
  CHECK(ParseCompletionWith(R"(,"max_tokens":0,"echo":true)")->common.sampling.max_tokens == 0);
}

}  // namespace
}  // namespace spin
