// A tokenizer.json of 265 tokens, written out by hand, for tests that need a valid file and no
// training.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "models/tokenizer/utf8.h"

namespace spin {

// The character that stands for `byte` in the byte alphabet.
inline std::string AlphabetCharacter(int byte) {
  const auto itself = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  int shifted = 0x100;
  for (int b = 0; b < byte; ++b) shifted += !itself(b);
  std::string out;
  AppendUtf8(itself(byte) ? byte : shifted, &out);
  return out;
}

// Ids: byte b has id b; then "ab" 256, "abc" 257, " a" 258, "<s>" 259 (special), "</s>" 260
// (special), "tool" 261.
inline nlohmann::json SmallTokenizerJson() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[AlphabetCharacter(byte)] = byte;
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab[AlphabetCharacter(' ') + "a"] = 258;
  const auto added = [](const char* content, int id, bool special) {
    return nlohmann::json{{"id", id},          {"content", content}, {"single_word", false},
                          {"lstrip", false},   {"rstrip", false},    {"normalized", false},
                          {"special", special}};
  };
  nlohmann::json file;
  file["added_tokens"] = {added("<s>", 259, true), added("</s>", 260, true),
                          added("tool", 261, false)};
  file["normalizer"] = {{"type", "NFC"}};
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", " ?\\p{L}+|\\s+|[^\\s\\p{L}]+"}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  nlohmann::json post;
  post["type"] = "TemplateProcessing";
  post["single"] = nlohmann::json::parse(
      R"([{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},)"
      R"({"SpecialToken":{"id":"</s>","type_id":0}}])");
  post["special_tokens"] =
      nlohmann::json::parse(R"({"<s>":{"id":"<s>","ids":[259]},"</s>":{"id":"</s>","ids":[260]}})");
  file["post_processor"] = post;
  file["decoder"] = {{"type", "ByteLevel"}};
  file["model"] = {{"type", "BPE"}, {"vocab", vocab}};
  file["model"]["merges"] = nlohmann::json::parse(R"([["a","b"],["ab","c"]])");
  file["model"]["merges"].push_back({AlphabetCharacter(' '), "a"});
  return file;
}

}  // namespace spin
