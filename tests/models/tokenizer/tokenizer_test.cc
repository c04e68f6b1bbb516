// Goal: encoding and decoding equal Hugging Face `tokenizers`, and files that cannot be served are
// refused with words. Method: recorded encodings (tests/models/testdata/make_tokenizer_fixtures.py)
// and edits of a small valid file.
#include "models/tokenizer/tokenizer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "common/mapped_file.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace spin {
namespace {

using Ids = std::vector<TokenId>;
using Json = nlohmann::json;

std::unique_ptr<Tokenizer> Load(const std::string& path) {
  auto tokenizer = Tokenizer::Load(path);
  INFO(tokenizer.status().ToString());
  REQUIRE(tokenizer.ok());
  return std::move(tokenizer).value();
}

std::unique_ptr<Tokenizer> Small() {
  auto tokenizer = Tokenizer::FromJson(SmallTokenizerJson().dump());
  INFO(tokenizer.status().ToString());
  REQUIRE(tokenizer.ok());
  return std::move(tokenizer).value();
}

TEST_CASE("a bound of a token's bytes is told where every byte of a text is in a token") {
  Json file = SmallTokenizerJson();
  const auto bound = [&] { return Tokenizer::FromJson(file.dump()).value()->max_token_bytes(); };
  CHECK(bound() == 0);  // NFC makes one character of several
  file["normalizer"] = nullptr;
  CHECK(bound() == 4);  // "tool", "</s>"
  file["added_tokens"][2]["content"] = "instrument";
  CHECK(bound() == 10);
  Json changed = file;
  changed["added_tokens"][0]["rstrip"] = true;
  std::swap(file, changed);
  CHECK(bound() == 0);
  std::swap(file, changed);
  changed = file;
  changed["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed";
  std::swap(file, changed);
  CHECK(bound() == 0);
  std::swap(file, changed);
  file["model"]["vocab"].erase("z");
  CHECK(bound() == 0);  // it is dropped
}

TEST_CASE("Recorded encodings of the three families are reproduced") {
  const std::string family = GENERATE("qwen3", "llama31", "smollm2");
  const std::string stem = "tests/models/testdata/tokenizers/" + family;
  const auto tokenizer = Load(stem + ".tokenizer.json");
  const auto text_of_cases = ReadTextFile(stem + ".cases.json");
  REQUIRE(text_of_cases.ok());
  const Json cases = Json::parse(*text_of_cases);
  REQUIRE(cases.size() > 300);
  for (const Json& item : cases) {
    const std::string text = item["text"];
    INFO(family << ": " << text);
    const Ids ids = item["ids"];
    const Ids special_ids = item["special_ids"];
    CHECK(tokenizer->Encode(text, false) == ids);
    CHECK(tokenizer->Encode(text, true) == special_ids);
    CHECK(tokenizer->Decode(special_ids, false) == item.value("decoded", text));
    CHECK(tokenizer->Decode(special_ids, true) == item.value("skipped", text));
  }
}

TEST_CASE("The real tokenizers load and encode, where their files are present") {
  const char* folder = std::getenv("SPIN_TESTDATA");
  if (folder == nullptr) {
    std::printf("skipped: SPIN_TESTDATA is not set\n");
    return;
  }
  const auto qwen3 = Load(std::string(folder) + "/tokenizers/qwen3/tokenizer.json");
  CHECK(qwen3->vocab_size() == 151669);
  CHECK(qwen3->Encode("Hello, world! 123", true) == Ids{9707, 11, 1879, 0, 220, 16, 17, 18});
  CHECK(qwen3->FindToken("<|im_end|>") == 151645);
  CHECK(qwen3->IsSpecial(151645));
  CHECK_FALSE(qwen3->IsSpecial(*qwen3->FindToken("<think>")));
  const auto llama = Load(std::string(folder) + "/tokenizers/llama3.1/tokenizer.json");
  CHECK(llama->vocab_size() == 128256);
  CHECK(llama->Encode("Hello, world! 123", true) == Ids{128000, 9906, 11, 1917, 0, 220, 4513});
}

TEST_CASE("Text becomes tokens, added tokens and bytes") {
  const auto tokenizer = Small();
  CHECK(tokenizer->Encode("", false).empty());
  CHECK(tokenizer->Encode("", true) == Ids{259, 260});
  CHECK(tokenizer->Encode("abc a", false) == Ids{257, 258});
  CHECK(tokenizer->Encode("<s>abctool", true) == Ids{259, 259, 257, 261, 260});
  CHECK(tokenizer->Encode("e\xCC\x81", false) == Ids{0xC3, 0xA9});   // NFC
  CHECK(tokenizer->Encode("\xC3", false) == Ids{0xEF, 0xBF, 0xBD});  // not UTF-8
  CHECK(tokenizer->Encode(std::string_view("\0", 1), false) == Ids{0});
}

TEST_CASE("Tokens become text, with or without the special ones") {
  const auto tokenizer = Small();
  CHECK(tokenizer->Decode(Ids{259, 257, 258, 261, 260}, false) == "<s>abc atool</s>");
  CHECK(tokenizer->Decode(Ids{259, 257, 258, 261, 260}, true) == "abc atool");
  CHECK(tokenizer->Decode(Ids{0xC3, 0xA9, 0xC3}, true) == "\xC3\xA9\xEF\xBF\xBD");
  CHECK(tokenizer->Decode(Ids{-1, 100000, 'x', 262, INT32_MAX, INT32_MIN}, true) == "x");
  CHECK(tokenizer->Decode(Ids{}, true).empty());
}

TEST_CASE("Tokens are found by their content") {
  const auto tokenizer = Small();
  CHECK(tokenizer->vocab_size() == 262);
  CHECK(tokenizer->FindToken("</s>") == 260);
  CHECK(tokenizer->FindToken("abc") == 257);
  CHECK_FALSE(tokenizer->FindToken("abcd").has_value());
  CHECK(tokenizer->IsSpecial(259));
  CHECK_FALSE(tokenizer->IsSpecial(261));
  CHECK_FALSE(tokenizer->IsSpecial(-1));
  CHECK_FALSE(tokenizer->IsSpecial(262));
  CHECK(tokenizer->TokenBytes(258) == " a");
  CHECK(tokenizer->TokenBytes(261) == "tool");
  CHECK(tokenizer->TokenBytes(-5).empty());
}

TEST_CASE("Text that is no JSON object is refused") {
  for (const char* text :
       {"", "{", "[]", "null", "\"x\"", "{\"model\": \xFF}", "{\"a\":\"\\ud800\"}"}) {
    INFO(text);
    CHECK_FALSE(Tokenizer::FromJson(text).ok());
  }
  CHECK_FALSE(Tokenizer::FromJson(std::string(1'000'000, '[')).ok());
  const auto missing = Tokenizer::Load("/nowhere/tokenizer.json");
  CHECK(missing.status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("Merges may be written in both ways, and the default of an absent field holds") {
  Json file = SmallTokenizerJson();
  file["model"]["merges"] = {"a b", "ab c"};
  file["model"].erase("type");
  file.erase("normalizer");
  file.erase("post_processor");
  const auto tokenizer = Tokenizer::FromJson(file.dump());
  REQUIRE(tokenizer.ok());
  CHECK((*tokenizer)->Encode("abc", true) == Ids{257});
}

TEST_CASE("A hundred thousand bytes without a space take well under a second") {
  const auto tokenizer = Load("tests/models/testdata/tokenizers/qwen3.tokenizer.json");
  for (const std::string unit : {"ab", "1", " ", "\n", "-", "\xE4\xB8\xAD", "e\xCC\x81", "<|im"}) {
    std::string text;
    while (text.size() < 100'000) text += unit;
    const Ids ids = tokenizer->Encode(text, false);
    CHECK(ids.size() > 100);
  }
}

TEST_CASE("Threads share one tokenizer") {
  const auto tokenizer = Load("tests/models/testdata/tokenizers/qwen3.tokenizer.json");
  const std::string text =
      "It's 12 o'clock, <|im_start|>\n\tsaid cafe\xCC\x81 \xE4\xB8\xAD\xE6\x96\x87";
  const Ids expected = tokenizer->Encode(text, true);
  std::vector<std::thread> threads;
  std::vector<int> equal(4);
  for (int& count : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) count += tokenizer->Encode(text, true) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(equal == std::vector<int>(4, 200));
}

}  // namespace
}  // namespace spin
