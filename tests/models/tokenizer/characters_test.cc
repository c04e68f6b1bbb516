// Goal: questions about characters are answered as by the reference, also for characters newer than the libraries.
#include "models/tokenizer/characters.h"

#include <catch2/catch.hpp>
#include <string>

#include "models/tokenizer/newer_characters.h"
#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

std::string Utf8(uint32_t c) {
  std::string out;
  AppendUtf8(c, &out);
  return out;
}

TEST_CASE("White space, word characters and numbers are Unicode's") {
  for (const uint32_t c : {0x09, 0x0D, 0x20, 0x85, 0xA0, 0x1680, 0x2003, 0x2028, 0x202F, 0x3000})
    CHECK(IsWhiteSpace(c));
  for (const uint32_t c : {0x08, 0x1C, 0x180E, 0x200B, 0xFEFF}) CHECK_FALSE(IsWhiteSpace(c));
  for (const uint32_t c : {0x61, 0x5F, 0x31, 0xE9, 0x301, 0x4E2D, 0x2160, 0x200D, 0x24B6})
    CHECK(IsWordCharacter(c));
  for (const uint32_t c : {0x20, 0x2D, 0xB2, 0x2014, 0x1F600}) CHECK_FALSE(IsWordCharacter(c));
  for (const uint32_t c : {0x30, 0xB2, 0xBD, 0x967, 0x2160, 0x2460, 0x11F50, 0x16FF4})
    CHECK(IsNumeric(c));
  for (const uint32_t c : {0x61, 0x4E00, 0x2E, 0x24B6}) CHECK_FALSE(IsNumeric(c));
}

TEST_CASE("Newer characters are stood in for by old ones of their length, and nothing else moves") {
  std::string storage;
  const std::string plain = "plain \xC3\xA9 \xE4\xB8\xAD \xF0\x9F\x98\x80";
  CHECK(WithKnownCharacters(plain, &storage).data() == plain.data());
  const std::string text = "a" + Utf8(0x31360) + "b" + Utf8(0x1C89) + plain;
  CHECK(WithKnownCharacters(text, &storage) == "a" + Utf8(0x20000) + "b" + Utf8(0x2C00) + plain);
}

TEST_CASE("The table of newer characters is sorted and keeps lengths") {
  uint32_t after = 0;
  for (const NewerCharacters& range : NewerCharacterTable()) {
    CHECK(range.first >= after);
    CHECK(range.last >= range.first);
    CHECK(Utf8(range.first).size() == Utf8(range.like).size());
    CHECK(Utf8(range.last).size() == Utf8(range.like).size());
    after = range.last + 1;
  }
}

}  // namespace
}  // namespace spin
