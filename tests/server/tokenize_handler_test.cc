// Text to tokens and back over the API.
#include "server/openai/tokenize_handler.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/server/exchange.h"

namespace spin {
namespace {

using nlohmann::json;
using testing::Exchange;
using testing::kChat;
using testing::With;

TEST_CASE("tokenize and detokenize") {
  Exchange x;
  x.Post("/tokenize", {{"prompt", "Hi"}, {"return_token_strs", true}});
  CHECK(
      x.Whole() ==
      json::parse(
          R"({"count":3,"max_model_len":128,"tokens":[256,72,105],"token_strs":["<s>","H","i"]})"));
  x.Post("/tokenize", {{"prompt", "Hi"}, {"add_special_tokens", false}});
  CHECK(x.Whole() ==
        json::parse(R"({"count":2,"max_model_len":128,"tokens":[72,105],"token_strs":null})"));
  x.Post("/tokenize", With(kChat, {{"add_generation_prompt", false}}));
  CHECK(x.Whole()["count"] == 9);
  x.Post("/detokenize", {{"tokens", {256, 72, 105}}});
  CHECK(x.Whole() == json::parse(R"({"prompt":"<s>Hi"})"));
  x.Post("/detokenize", {{"tokens", {258}}});
  CHECK(x.task->PollHead()->status == 400);
}

}  // namespace
}  // namespace spin
