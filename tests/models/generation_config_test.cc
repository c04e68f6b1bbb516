// generation_config.json: what is taken and what is refused.
#include "models/generation_config.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

TEST_CASE("Keys that are present are taken, others stay open") {
  const auto full = ParseGenerationConfig(
      R"({"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0, "repetition_penalty": 1.05,
          "eos_token_id": [151645, 151643], "do_sample": true, "transformers_version": "4.51.0"})");
  REQUIRE(full.ok());
  CHECK(full->temperature == 0.6);
  CHECK(full->top_p == 0.95);
  CHECK(full->top_k == 20);
  CHECK(full->min_p == 0.0);
  CHECK(full->repetition_penalty == 1.05);
  CHECK(full->eos_token_ids == std::vector<int32_t>{151645, 151643});
  const auto sparse = ParseGenerationConfig(R"({"eos_token_id": 2, "temperature": null})");
  REQUIRE(sparse.ok());
  CHECK_FALSE(sparse->temperature.has_value());
  CHECK_FALSE(sparse->top_k.has_value());
  CHECK(sparse->eos_token_ids == std::vector<int32_t>{2});
}

TEST_CASE("Values of another type are refused by key") {
  for (const char* text : {R"({"top_k": -2})", R"({"temperature": "hot"})",
                           R"({"temperature": 1e400})", R"({"temperature": [1]})"}) {
    INFO(text);
    const auto parsed = ParseGenerationConfig(text);
    REQUIRE_FALSE(parsed.ok());
    CHECK_THAT(MessageOf(parsed.status()), Catch::Contains("generation_config.json"));
  }
  const auto key = ParseGenerationConfig(R"({"top_p": true})");
  CHECK_THAT(MessageOf(key.status()), Catch::Contains("'top_p'"));
  CHECK_FALSE(ParseGenerationConfig(R"({"eos_token_id": "end"})").ok());
  CHECK_FALSE(ParseGenerationConfig("[]").ok());
}

}  // namespace
}  // namespace spin
