// JSON bodies: positions of errors, order of members, and texts made to hurt a parser.
#include "server/openai/json_body.h"

#include <catch2/catch.hpp>
#include <chrono>

namespace spin {
namespace {

TEST_CASE("errors say where") {
  const auto parsed = ParseJsonBody("{\"a\": 1,\n \"b\": tru}");
  REQUIRE_FALSE(parsed.ok());
  CHECK(MessageOf(parsed.status()).find("line 2, column 10") != std::string::npos);
  for (const char* bad : {"", " ", "{", "}", "[", "nul", "{\"a\"}", "{\"a\":1}}", "\"\xFF\"",
                          "{\"a\":\"\\ud800\"}", "1e999"}) {
    INFO(bad);
    CHECK(ParseJsonBody(bad).status().code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(MessageOf(ParseJsonBody("[1]").status()).find("array") != std::string::npos);
}

TEST_CASE("members keep their order") {
  CHECK(DumpJson(*ParseJsonBody(R"({"z":1,"a":{"y":2,"b":3}})")) == R"({"z":1,"a":{"y":2,"b":3}})");
}

TEST_CASE("nesting is bounded, brackets in strings do not count") {
  for (const std::string& open : {std::string("["), std::string("{\"a\":")}) {
    std::string deep;
    for (int i = 0; i < 100'000; ++i) deep += open;
    CHECK(MessageOf(ParseJson(deep).status()).find("nested") != std::string::npos);
  }
  CHECK(ParseJson(std::string(99, '[') + std::string(99, ']')).ok());
  CHECK(ParseJson("\"" + std::string(1000, '[') + "\\\"[[\"").ok());
}

TEST_CASE("an object with a hundred thousand members costs little and is refused") {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  text += "\"end\":0}";
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(ParseJsonBody(text).ok());
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(1));
}

TEST_CASE("invalid UTF-8 is replaced when written") {
  CHECK(DumpJson(Json("a\xC3")) == "\"a\xEF\xBF\xBD\"");
}

TEST_CASE("UTF-8 is recognised exactly") {
  for (const char* good : {"", "a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xEF\xBF\xBD",
                           "\xF4\x8F\xBF\xBF"}) {
    CHECK(IsUtf8(good));
  }
  for (const char* bad :
       {"\x80", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "a\xFF"}) {
    CHECK_FALSE(IsUtf8(bad));
  }
}

}  // namespace
}  // namespace spin
