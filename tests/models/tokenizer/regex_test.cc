// Goal: patterns written for Oniguruma match the same under PCRE2, or are refused; no pattern
// hangs.
#include "models/tokenizer/regex.h"

#include <catch2/catch.hpp>
#include <string>

#include "common/status.h"

namespace spin {
namespace {

// The first match as "begin-end", "none", or "refused".
std::string FirstMatch(std::string_view pattern, std::string_view subject) {
  const auto regex = Regex::Compile(pattern);
  if (!regex.ok()) return "refused";
  Regex::Matcher matcher(*regex);
  const auto match = matcher.Find(subject, 0);
  return match.has_value() ? std::to_string(match->begin) + "-" + std::to_string(match->end)
                           : "none";
}

TEST_CASE("White space is Unicode's, without the Mongolian vowel separator") {
  CHECK(FirstMatch(R"(\s)", "a\xE1\xA0\x8E") == "none");
  CHECK(FirstMatch(R"(\s)", "a\xC2\x85") == "1-3");
  CHECK(FirstMatch(R"(\s)", "a\xE3\x80\x80") == "1-4");
  CHECK(FirstMatch(R"(\S)", "\xE1\xA0\x8E") == "0-3");
}

TEST_CASE("Word characters include marks, and case folds as Unicode says") {
  CHECK(FirstMatch(R"(\w+)", "e\xCC\x81!") == "0-3");
  CHECK(FirstMatch(R"(\W)", "e\xCC\x81!") == "3-4");
  CHECK(FirstMatch("(?i:'s)", "'\xC5\xBF") == "0-3");  // the long s
}

TEST_CASE("Lines are Ruby's: ^ and $ match at each one") {
  CHECK(FirstMatch("^b$", "a\nb\nc") == "2-3");
  CHECK(FirstMatch(".", "\n\r") == "1-2");
}

TEST_CASE("What may mean something else is refused by name") {
  for (const char* pattern :
       {R"(\bword\b)", R"((?m:.))", R"((?<name>a))", R"((a)\1)", R"([a-z&&[^b]])", R"([[:alpha:]])",
        R"(\p{N}{1,3}+)", R"([\W])", R"(\pL)", R"(\u12)", R"(\x80)", R"(\K)", R"(\)", "(*ANY)a",
        "[]a]", "(", "[a", "a{2,1}", R"(\p{NoSuch})"}) {
    INFO(pattern);
    const auto regex = Regex::Compile(pattern);
    REQUIRE_FALSE(regex.ok());
    CHECK(MessageOf(regex.status()).find(pattern) != std::string::npos);
  }
  CHECK(FirstMatch("\xFF", "a") == "refused");
  CHECK(FirstMatch(std::string(200, '(') + std::string(200, ')'), "a") == "refused");
  CHECK(FirstMatch(std::string(100000, 'a'), "a") == "refused");
}

TEST_CASE("A literal matches itself, whatever it holds") {
  const auto regex = Regex::Literal("a.b[\\E](");
  REQUIRE(regex.ok());
  Regex::Matcher matcher(*regex);
  CHECK_FALSE(matcher.Find("axb[\\E](", 0).has_value());
  CHECK(matcher.Find("..a.b[\\E](", 0)->begin == 2);
  CHECK_FALSE(Regex::Literal("").ok());
}

TEST_CASE("A search that backtracks without end stops without a match") {
  CHECK(FirstMatch("(?:a|aa)+(?=c|d)", std::string(4000, 'a')) == "none");
  CHECK(FirstMatch("(?:a|aa)+(?=c|d)", std::string(1000000, 'a')) == "none");
}

TEST_CASE("Matching works at the ends and in empty text") {
  CHECK(FirstMatch("a", "") == "none");
  CHECK(FirstMatch("a*", "") == "0-0");
  CHECK(FirstMatch("\\x{0}", std::string_view("a\0", 2)) == "1-2");
}

}  // namespace
}  // namespace spin
