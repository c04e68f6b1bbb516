// Goal: UTF-8 is taken and repaired exactly as the standard's maximal subparts say, however the
// bytes arrive. Method: the standard's own examples, and random bytes cut at random places.
#include "models/tokenizer/utf8.h"

#include <catch2/catch.hpp>
#include <string>

#include "common/random.h"

namespace spin {
namespace {

std::string Repaired(std::string_view bytes) {
  std::string out;
  AppendUtf8Lossy(bytes, &out);
  return out;
}

#define FFFD "\xEF\xBF\xBD"

TEST_CASE("What is not UTF-8 becomes one replacement character per maximal subpart") {
  CHECK(Repaired("abc") == "abc");
  CHECK(Repaired("\xC3\xA9") == "\xC3\xA9");
  CHECK(Repaired("\x80") == FFFD);
  CHECK(Repaired("\xC0\xAF") == FFFD FFFD);           // overlong: C0 never starts a character
  CHECK(Repaired("\xE0\x80\xAF") == FFFD FFFD FFFD);  // overlong in three bytes
  CHECK(Repaired("\xED\xA0\x80") == FFFD FFFD FFFD);  // a surrogate
  CHECK(Repaired("\xF4\x91\x92\x93") == FFFD FFFD FFFD FFFD);  // above U+10FFFF
  CHECK(Repaired("\xFF"
                 "A") == FFFD "A");
  // The Unicode Standard, table 3-11: truncated sequences are one subpart each.
  CHECK(Repaired("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
                 "A") == FFFD FFFD FFFD FFFD "A");
  CHECK(Repaired("\xF0\x9F\x98") == FFFD);
}

TEST_CASE("A character that the end cuts off is left for later") {
  std::string out;
  CHECK(AppendWholeUtf8("a\xF0\x9F\x98", &out) == 1);
  CHECK(out == "a");
  CHECK(AppendWholeUtf8("\xF0\x9F\x98\x80\xE2\x82", &out) == 4);
  CHECK(out == "a\xF0\x9F\x98\x80");
  CHECK(AppendWholeUtf8("\xE2\x28", &out) == 2);  // cannot be completed: repaired at once
  CHECK(out == "a\xF0\x9F\x98\x80" FFFD "(");
}

TEST_CASE("Every scalar value is written and read back, and nothing else is valid") {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    if (c < 0xD800 || c > 0xDFFF) {
      AppendUtf8(c, &text);
      const Utf8Char read = DecodeUtf8(text, 0);
      REQUIRE(read.kind == Utf8Char::Kind::kValid);
      REQUIRE(read.code_point == c);
      REQUIRE(static_cast<std::size_t>(read.length) == text.size());
    }
  }
  CHECK(IsValidUtf8(""));
  CHECK(IsValidUtf8("0123456789\xC3\xA9"));
  CHECK_FALSE(IsValidUtf8("0123456789\xC3"));
  CHECK_FALSE(IsValidUtf8("\xED\xBF\xBF"));
}

TEST_CASE("Random bytes are repaired the same in one piece and in many") {
  const uint64_t seed = GENERATE(range(1, 200));
  INFO("seed " << seed);
  Random random(seed);
  static constexpr uint8_t kBytes[] = {'a',  0x80, 0xBF, 0xC3, 0xA9, 0xE0, 0xE2,
                                       0xED, 0xA0, 0xF0, 0x90, 0xF4, 0x8F, 0xFF};
  std::string bytes;
  for (uint32_t i = random.Below(60); i > 0; --i)
    bytes += static_cast<char>(kBytes[random.Below(std::size(kBytes))]);
  std::string pieces;
  std::string held;
  for (const char byte : bytes) {
    held += byte;
    if (random.Below(3) == 0) continue;
    held.erase(0, AppendWholeUtf8(held, &pieces));
    REQUIRE(held.size() <= 3);
  }
  AppendUtf8Lossy(held, &pieces);
  CHECK(pieces == Repaired(bytes));
  CHECK(IsValidUtf8(pieces));
}

}  // namespace
}  // namespace spin
