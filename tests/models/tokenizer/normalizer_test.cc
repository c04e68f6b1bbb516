// Goal: NFC as Unicode's annex 15 defines it, in linear time.
#include "models/tokenizer/normalizer.h"

#include <catch2/catch.hpp>
#include <string>

#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

std::string Nfc(std::u32string_view text) {
  std::string utf8;
  for (const char32_t c : text) AppendUtf8(c, &utf8);
  std::string storage;
  return std::string(Normalizer(Normalizer::Kind::kNfc).Normalize(utf8, &storage));
}
std::string Utf8(std::u32string_view text) {
  std::string utf8;
  for (const char32_t c : text) AppendUtf8(c, &utf8);
  return utf8;
}

TEST_CASE("Marks compose, reorder and stay as NFC says") {
  CHECK(Nfc(U"e\u0301t\u00E9") == Utf8(U"\u00E9t\u00E9"));
  CHECK(Nfc(U"\u212B\u2126") == Utf8(U"\u00C5\u03A9"));    // singletons
  CHECK(Nfc(U"o\u0302\u0323") == Utf8(U"\u1ED9"));         // reordered, then composed twice
  CHECK(Nfc(U"q\u0307\u0323") == Utf8(U"q\u0323\u0307"));  // only reordered
  CHECK(Nfc(U"\u1112\u1161\u11AB") == Utf8(U"\uD55C"));    // Hangul
  CHECK(Nfc(U"\uAC00\u11A8") == Utf8(U"\uAC01"));
  CHECK(Nfc(U"\u0958") == Utf8(U"\u0915\u093C"));  // excluded from composition
  CHECK(Nfc(U"\u304B\u3099") == Utf8(U"\u304C"));
  CHECK(Nfc(U"\u0344") == Utf8(U"\u0308\u0301"));
  CHECK(Nfc(U"\uFB01") == Utf8(U"\uFB01"));  // compatibility only
  CHECK(Nfc(U"\U0001D15E") == Utf8(U"\U0001D157\U0001D165"));
  CHECK(Nfc(U"") == "");
}

TEST_CASE("Text that is already normal is not copied") {
  std::string storage;
  const std::string text = "plain, \xC3\xA9t\xC3\xA9, \xE4\xB8\xAD\xE6\x96\x87, \xED\x95\x9C";
  CHECK(Normalizer(Normalizer::Kind::kNfc).Normalize(text, &storage).data() == text.data());
  const std::string decomposed = "e\xCC\x81";
  CHECK(Normalizer(Normalizer::Kind::kNone).Normalize(decomposed, &storage).data() ==
        decomposed.data());
}

TEST_CASE("A million marks in the worst order take linear time") {
  std::u32string text = U"a";
  for (int i = 0; i < 500000; ++i) text += U"\u0301\u0316";  // classes 230 and 220
  const std::string result = Nfc(text);
  CHECK(result.size() == 2 + 2 * 999999);  // one of the first kind composes with the letter
  CHECK(result.substr(0, 4) == Utf8(U"\u00E1\u0316"));
}

}  // namespace
}  // namespace spin
