// Goal: a tokenizer.json that cannot be served exactly is refused, with the part of the file and the reason.
// Method: edits of a small valid file.
#include "models/tokenizer/tokenizer_json.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/models/tokenizer/small_tokenizer.h"

#include "common/status.h"

namespace spin {
namespace {

using Json = nlohmann::json;

std::string ErrorOf(const Json& file) {
  const auto parts = ParseTokenizerJson(file.dump());
  return parts.ok() ? "" : MessageOf(parts.status());
}

TEST_CASE("Files that cannot be served are refused with the part and the reason") {
  const Json good = SmallTokenizerJson();
  REQUIRE(ErrorOf(good).empty());
  const auto refused = [&](const char* pointer, Json value, const std::string& reason) {
    Json file = good;
    file[Json::json_pointer(pointer)] = std::move(value);
    INFO(pointer);
    const std::string error = ErrorOf(file);
    INFO(error);
    CHECK(error.find(reason) != std::string::npos);
  };
  refused("/model", nullptr, "\"model\" must be an object");
  refused("/model/type", "WordPiece", "BPE");
  refused("/model/vocab", Json::array(), "\"vocab\" must be an object");
  refused("/model/vocab/ab", "256", "the id of \"ab\"");
  refused("/model/vocab/ab", -1, "the id of \"ab\"");
  refused("/model/vocab/ab", 1e30, "the id of \"ab\"");
  refused("/model/vocab/ab", 4294967296, "the id of \"ab\"");
  refused("/model/vocab/ab", 257, "two tokens have id 257");
  refused("/model/merges/0", "a b c", "merge 0");
  refused("/model/merges/0", Json::array({"a", "zz"}), "merge 0");
  refused("/model/byte_fallback", true, "byte_fallback");
  refused("/model/dropout", 0.1, "dropout");
  refused("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  refused("/model/unk_token", "nowhere", "nowhere");
  refused("/normalizer", Json{{"type", "Lowercase"}}, "normalizer: type \"Lowercase\"");
  refused("/pre_tokenizer", nullptr, "pre_tokenizer");
  refused("/pre_tokenizer/pretokenizers/0/type", "Metaspace", "\"Metaspace\" is not supported");
  refused("/pre_tokenizer/pretokenizers/0/pattern/Regex", "(", "does not compile");
  refused("/pre_tokenizer/pretokenizers/0/behavior", "Sometimes", "Sometimes");
  refused("/pre_tokenizer/pretokenizers/2/type", "Digits", "no ByteLevel");
  refused("/decoder", nullptr, "decoder");
  refused("/decoder/type", "WordPiece", "decoder: type \"WordPiece\"");
  refused("/added_tokens/0/id", 257, "added_tokens: \"<s>\" has id 257");
  refused("/added_tokens/0/id", 260, "clashes");
  refused("/added_tokens/0/content", 5, "\"content\" is a JSON number");
  refused("/added_tokens/0/special", "yes", "\"special\" is a JSON string");
  refused("/post_processor/type", "BertProcessing", "BertProcessing");
  refused("/post_processor/special_tokens/<s>/ids/0", 70000, "which no token has");
  refused("/post_processor/single/1", Json::object(), "SpecialToken");
}

TEST_CASE("Sequences nested without end are refused") {
  Json file = SmallTokenizerJson();
  for (int i = 0; i < 20; ++i) {
    file["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers", Json::array({file["pre_tokenizer"]})}};
  }
  CHECK(ErrorOf(file).find("nested") != std::string::npos);
}

TEST_CASE("Templates go around one another") {
  Json file = SmallTokenizerJson();
  const Json inner = file["post_processor"];
  file["post_processor"] = {{"type", "Sequence"}, {"processors", Json::array({inner, inner})}};
  const auto parts = ParseTokenizerJson(file.dump());
  REQUIRE(parts.ok());
  CHECK(parts->prefix == std::vector<TokenId>{259, 259});
  CHECK(parts->suffix == std::vector<TokenId>{260, 260});
}

}  // namespace
}  // namespace spin
