#include "models/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

struct Range {
  uint32_t first;
  uint32_t last;
};

// Characters of the great scripts that NFC leaves alone whatever stands before them: starters,
// without a canonical decomposition that NFC would not undo, and never the second half of a
// composition.
constexpr Range kStable[] = {
    {0x0000, 0x02FF},    // Latin
    {0x0400, 0x0482},    // Cyrillic
    {0x05D0, 0x05EA},    // Hebrew letters
    {0x0621, 0x064A},    // Arabic letters
    {0x2010, 0x2027},    // dashes, quotes, bullets, ellipsis
    {0x3001, 0x3029},    // CJK punctuation
    {0x3041, 0x3096},    // Hiragana
    {0x30A1, 0x30FA},    // Katakana
    {0x4E00, 0x9FFF},    // CJK ideographs
    {0xAC00, 0xD7A3},    // Hangul syllables (a following jamo composes, but a jamo is not stable)
    {0xFF01, 0xFF5E},    // full-width forms
    {0x1F300, 0x1FAFF},  // emoji
};

bool IsStable(uint32_t c) {
  if (c <= kStable[0].last) return true;
  return std::any_of(std::begin(kStable) + 1, std::end(kStable),
                     [c](const Range& range) { return c >= range.first && c <= range.last; });
}

// True when `text` is surely in NFC.
bool IsTriviallyNfc(std::string_view text) {
  for (std::size_t at = AsciiPrefix(text); at < text.size();) {
    const Utf8Char c = DecodeUtf8(text, at);
    if (!IsStable(c.code_point)) return false;
    at += c.length;
    if (c.length == 1) at += AsciiPrefix(text.substr(at));
  }
  return true;
}

// Canonical decomposition of `text`, marks not yet ordered.
std::vector<int32_t> Decompose(std::string_view text) {
  std::vector<int32_t> out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = DecodeUtf8(text, at);
    at += c.length;
    constexpr int kLongest = 8;  // canonical decompositions have at most 4 characters
    int32_t parts[kLongest];
    int boundclass = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(static_cast<int32_t>(c.code_point), parts,
                                                       kLongest, UTF8PROC_DECOMPOSE, &boundclass);
    if (n >= 1 && n <= kLongest) {
      out.insert(out.end(), parts, parts + n);
    } else {
      out.push_back(static_cast<int32_t>(c.code_point));
    }
  }
  return out;
}

int CombiningClass(int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

// Canonical ordering (UAX 15): each run of marks sorted by combining class. utf8proc's own sorts by
// insertion, which a text of a million marks turns quadratic.
void OrderMarks(std::vector<int32_t>* text) {
  for (auto begin = text->begin(); begin != text->end();) {
    if (CombiningClass(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, text->end(), [](int32_t c) { return CombiningClass(c) == 0; });
    std::stable_sort(begin, end,
                     [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    begin = end;
  }
}

}  // namespace

std::string_view Normalizer::Normalize(std::string_view text, std::string* storage) const {
  if (kind_ == Kind::kNone || IsTriviallyNfc(text)) return text;
  std::vector<int32_t> characters = Decompose(text);
  OrderMarks(&characters);
  const utf8proc_ssize_t n =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  storage->clear();
  storage->reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < n; ++i)
    AppendUtf8(static_cast<uint32_t>(characters[i]), storage);
  return *storage;
}

}  // namespace spin
