// Goal: the rewriting of patterns is exact; regex_test.cc shows that the result matches as it should.
#include "models/tokenizer/oniguruma_pattern.h"

#include <catch2/catch.hpp>
#include <string>

#include "common/status.h"

namespace spin {
namespace {

TEST_CASE("What PCRE2 reads differently is rewritten") {
  CHECK(*TranslateOnigurumaPattern(R"(\s+(?!\S)|[^\s\p{L}])") ==
        R"(\p{White_Space}+(?!\P{White_Space})|[^\p{White_Space}\p{L}])");
  CHECK(*TranslateOnigurumaPattern(R"(\u00e9\x{1F600}\x41\v)") ==
        R"(\x{00e9}\x{1F600}\x{41}\x{B})");
  CHECK(*TranslateOnigurumaPattern(R"([\h]\h\H)") == "[0-9a-fA-F][0-9a-fA-F][^0-9a-fA-F]");
  CHECK(*TranslateOnigurumaPattern(R"(a\.\/\-)") == R"(a\.\/\-)");
}

TEST_CASE("What differs in effect is refused with its place") {
  const auto pattern = TranslateOnigurumaPattern("ab\\b");
  REQUIRE_FALSE(pattern.ok());
  CHECK(MessageOf(pattern.status()).find("the escape \\b at byte 2") != std::string::npos);
}

TEST_CASE("The families' patterns pass with only white space rewritten") {
  constexpr std::string_view kQwen3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)";
  const auto pattern = TranslateOnigurumaPattern(kQwen3);
  REQUIRE(pattern.ok());
  CHECK(
      *pattern ==
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*)");
}

}  // namespace
}  // namespace spin
