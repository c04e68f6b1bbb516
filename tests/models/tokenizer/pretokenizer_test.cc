// Goal: each step cuts as Hugging Face's does.
#include "models/tokenizer/pretokenizer.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace spin {
namespace {

using Behavior = Pretokenizer::Behavior;

std::string Words(const Pretokenizer& pretokenizer, std::string_view text) {
  Pretokenizer::Scratch scratch(pretokenizer);
  std::vector<std::string_view> words;
  pretokenizer.Split(text, &scratch, &words);
  std::string out;
  for (const std::string_view word : words) out += (out.empty() ? "" : "|") + std::string(word);
  return out;
}

std::string SplitWords(std::string_view pattern, Behavior behavior, bool invert,
                       std::string_view text) {
  Pretokenizer pretokenizer;
  auto regex = Regex::Compile(pattern);
  REQUIRE(regex.ok());
  pretokenizer.AddSplit(std::move(regex).value(), behavior, invert);
  return Words(pretokenizer, text);
}

TEST_CASE("Split does with matches what its behavior says") {
  const std::string_view text = "a--b-c-";
  CHECK(SplitWords("-", Behavior::kIsolated, false, text) == "a|-|-|b|-|c|-");
  CHECK(SplitWords("-", Behavior::kRemoved, false, text) == "a|b|c");
  CHECK(SplitWords("-", Behavior::kMergedWithPrevious, false, text) == "a-|-|b-|c-");
  CHECK(SplitWords("-", Behavior::kMergedWithNext, false, text) == "a|-|-b|-c|-");
  CHECK(SplitWords("-", Behavior::kContiguous, false, text) == "a|--|b|-|c|-");
  CHECK(SplitWords("-", Behavior::kMergedWithPrevious, false, "--a") == "-|-|a");
  CHECK(SplitWords("-", Behavior::kMergedWithNext, false, "--a") == "-|-a");
}

TEST_CASE("Invert swaps matches and the rest") {
  CHECK(SplitWords("[a-z]+", Behavior::kRemoved, true, "ab, cd!") == "ab|cd");
  CHECK(SplitWords("[a-z]+", Behavior::kMergedWithPrevious, true, "ab, cd!") == "ab, |cd!");
}

TEST_CASE("Empty matches cut, and end") {
  CHECK(SplitWords("(?=[A-Z])", Behavior::kIsolated, false, "oneTwoThree") == "one|Two|Three");
  CHECK(SplitWords("x*", Behavior::kIsolated, false, "axxb") == "a|xx|b");
  CHECK(SplitWords("x*", Behavior::kRemoved, false, "\xC3\xA9x\xC3\xA9") == "\xC3\xA9|\xC3\xA9");
  CHECK(SplitWords("x*", Behavior::kIsolated, false, "") == "");
}

TEST_CASE("Digits are numbers of every script, alone or in runs") {
  Pretokenizer single;
  single.AddDigits(true);
  Pretokenizer runs;
  runs.AddDigits(false);
  CHECK(Words(single, "a12b\xC2\xB2\xE0\xA5\xA7") == "a|1|2|b|\xC2\xB2|\xE0\xA5\xA7");
  CHECK(Words(runs, "12a345") == "12|a|345");
}

TEST_CASE("ByteLevel cuts by GPT-2's pattern and adds its space") {
  Pretokenizer plain;
  REQUIRE(plain.AddByteLevel(false, true).ok());
  CHECK(Words(plain, "I'm  here, 42\n\n now") == "I|'m| | here|,| 42|\n\n| now");
  Pretokenizer prefix;
  REQUIRE(prefix.AddByteLevel(true, true).ok());
  CHECK(Words(prefix, "ab cd") == " ab| cd");
  CHECK(Words(prefix, " ab") == " ab");
  CHECK(Words(prefix, "\nab") == " |\n|ab");
  Pretokenizer uncut;
  REQUIRE(uncut.AddByteLevel(false, false).ok());
  CHECK(Words(uncut, "I'm here") == "I'm here");
}

TEST_CASE("Steps follow one another") {
  Pretokenizer steps;
  steps.AddDigits(true);
  REQUIRE(steps.AddByteLevel(false, true).ok());
  CHECK(Words(steps, "abc 12 d") == "abc| |1|2| d");
}

TEST_CASE("Characters newer than the library's Unicode are known by their category") {
  // U+31360 (CJK, Unicode 15) and U+1C89 (Cyrillic, Unicode 16) are letters; U+11F50 (Kawi) is a
  // digit.
  CHECK(SplitWords("\\p{L}+", Behavior::kIsolated, false,
                   "a\xF0\xB1\x8D\xA0"
                   "b.") ==
        "a\xF0\xB1\x8D\xA0"
        "b|.");
  CHECK(SplitWords("\\p{L}+", Behavior::kIsolated, false, "\xE1\xB2\x89.") == "\xE1\xB2\x89|.");
  CHECK(SplitWords("\\p{N}+", Behavior::kIsolated, false, "a\xF0\x91\xBD\x90") ==
        "a|\xF0\x91\xBD\x90");
}

}  // namespace
}  // namespace spin
