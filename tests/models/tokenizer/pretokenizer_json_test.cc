// Goal: every step of a "pre_tokenizer" reaches the Pretokenizer with its options, and the rest is refused.
#include "models/tokenizer/pretokenizer_json.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/status.h"

namespace spin {
namespace {

std::string Words(const char* json, std::string_view text) {
  const auto pretokenizer = ParsePretokenizer(nlohmann::json::parse(json));
  if (!pretokenizer.ok()) return "refused: " + MessageOf(pretokenizer.status());
  Pretokenizer::Scratch scratch(*pretokenizer);
  std::vector<std::string_view> words;
  pretokenizer->Split(text, &scratch, &words);
  std::string out;
  for (const std::string_view word : words) out += (out.empty() ? "" : "|") + std::string(word);
  return out;
}

std::string SplitThenBytes(const std::string& pattern, const std::string& behavior,
                           const char* invert, std::string_view text) {
  const std::string json = R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":)" +
                           pattern + R"(,"behavior":")" + behavior + R"(","invert":)" + invert +
                           R"(},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
  return Words(json.c_str(), text);
}

TEST_CASE("Split takes its pattern, behavior and inversion from the file") {
  CHECK(SplitThenBytes(R"({"String":"."})", "Isolated", "false", "a.bc") == "a|.|bc");
  CHECK(SplitThenBytes(R"({"Regex":"."})", "Isolated", "false", "a.") == "a|.");
  CHECK(SplitThenBytes(R"({"String":"."})", "Removed", "false", "a.b") == "a|b");
  CHECK(SplitThenBytes(R"({"String":"."})", "MergedWithPrevious", "false", "a.b") == "a.|b");
  CHECK(SplitThenBytes(R"({"String":"."})", "MergedWithNext", "false", "a.b") == "a|.b");
  CHECK(SplitThenBytes(R"({"String":"."})", "Contiguous", "false", "a..b") == "a|..|b");
  CHECK(SplitThenBytes(R"({"String":"."})", "Removed", "true", "a.b") == ".");
}

TEST_CASE("ByteLevel and Digits take their options, and ByteLevel's are on when absent") {
  CHECK(Words(R"({"type":"ByteLevel"})", "ab cd") == " ab| cd");
  CHECK(Words(R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})", "ab cd") ==
        "ab cd");
  constexpr const char* kDigits =
      R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},)"
      R"({"type":"ByteLevel","add_prefix_space":false}]})";
  CHECK(Words(kDigits, "a12") == "a|1|2");
}

TEST_CASE("What is not supported is refused by name") {
  CHECK(Words(R"({"type":"Whitespace"})", "").find("\"Whitespace\" is not supported") !=
        std::string::npos);
  CHECK(Words(R"({"type":"Digits"})", "").find("no ByteLevel") != std::string::npos);
  CHECK(Words(R"({})", "").find("\"type\" is missing") != std::string::npos);
  CHECK(Words(R"([])", "").find("\"type\" is missing") != std::string::npos);
  CHECK(Words(R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})", "")
            .find("comes after ByteLevel") != std::string::npos);
  CHECK(Words(R"({"type":"ByteLevel","use_regex":1})", "").find("use_regex") != std::string::npos);
}

}  // namespace
}  // namespace spin
