#include "models/tokenizer/characters.h"

#include <utf8proc.h>

#include <algorithm>

#include "models/tokenizer/newer_characters.h"
#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

// The character itself, or an old one of its category.
uint32_t KnownCharacter(uint32_t c) {
  const std::span<const NewerCharacters> table = NewerCharacterTable();
  const auto range =
      std::lower_bound(table.begin(), table.end(), c,
                       [](const NewerCharacters& r, uint32_t v) { return r.last < v; });
  return range != table.end() && c >= range->first ? range->like : c;
}

utf8proc_category_t Category(uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(KnownCharacter(c)));
}

// Other_Alphabetic outside letters, marks and numbers: circled and squared Latin letters.
bool IsEnclosedLetter(uint32_t c) {
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

}  // namespace

bool IsWhiteSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsWordCharacter(uint32_t c) {
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return c == 0x200C || c == 0x200D || IsEnclosedLetter(c);
  }
}

bool IsNumeric(uint32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  if ((c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6)) return true;  // Unicode 17
  const utf8proc_category_t category = Category(c);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

std::string_view WithKnownCharacters(std::string_view text, std::string* storage) {
  bool copied = false;
  for (std::size_t at = AsciiPrefix(text); at < text.size();) {
    const Utf8Char c = DecodeUtf8(text, at);
    // No character of two bytes is that new.
    const uint32_t known = c.length < 3 ? c.code_point : KnownCharacter(c.code_point);
    if (known != c.code_point) {
      if (!copied) storage->assign(text);
      copied = true;
      std::string replacement;
      AppendUtf8(known, &replacement);
      storage->replace(at, c.length, replacement);
    }
    at += c.length;
    if (c.length == 1) at += AsciiPrefix(text.substr(at));
  }
  return copied ? std::string_view(*storage) : text;
}

}  // namespace spin
