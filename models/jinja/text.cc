#include "models/jinja/text.h"

#include <utf8proc.h>

namespace spin::jinja {

namespace {

utf8proc_ssize_t Decode(std::string_view text, utf8proc_int32_t* code_point) {
  return utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                          static_cast<utf8proc_ssize_t>(text.size()), code_point);
}

// Sharp s is the one letter in common use whose upper case is two letters.
void AppendUpper(int32_t code_point, std::string* out) {
  if (code_point == 0xDF) {
    out->append("SS");
  } else {
    AppendUtf8(utf8proc_toupper(code_point), out);
  }
}

bool Valid(std::string_view character) {
  utf8proc_int32_t code_point = 0;
  return Decode(character, &code_point) > 0;
}

bool EndsLine(int32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

// The last character of `text`: bytes back to a lead byte, one byte when that is not a whole
// character.
std::string_view LastCharacter(std::string_view text) {
  for (size_t bytes = 1; bytes <= 4 && bytes <= text.size(); ++bytes) {
    const std::string_view tail = text.substr(text.size() - bytes);
    if ((tail[0] & 0xC0) == 0x80) continue;
    if (CharacterBytes(tail) == bytes) return tail;
    break;
  }
  return text.substr(text.size() - 1);
}

template <typename Drop>
std::string_view Strip(std::string_view text, Side side, Drop drop) {
  while (side != Side::kRight && !text.empty()) {
    const std::string_view first = text.substr(0, CharacterBytes(text));
    if (!drop(first)) break;
    text.remove_prefix(first.size());
  }
  while (side != Side::kLeft && !text.empty()) {
    const std::string_view last = LastCharacter(text);
    if (!drop(last)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

}  // namespace

size_t CharacterBytes(std::string_view text) {
  if (static_cast<unsigned char>(text[0]) < 0x80) return 1;
  utf8proc_int32_t code_point = 0;
  const utf8proc_ssize_t bytes = Decode(text, &code_point);
  return bytes > 0 ? static_cast<size_t>(bytes) : 1;
}

int32_t CodePoint(std::string_view text) {
  utf8proc_int32_t code_point = 0;
  if (Decode(text, &code_point) > 0) return code_point;
  return static_cast<unsigned char>(text[0]);
}

void AppendUtf8(int32_t code_point, std::string* out) {
  utf8proc_uint8_t buffer[4];
  const utf8proc_ssize_t bytes = utf8proc_encode_char(code_point, buffer);
  out->append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(bytes));
}

size_t CharacterCount(std::string_view text) {
  size_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(CharacterBytes(text));
  return count;
}

std::vector<std::string_view> Characters(std::string_view text) {
  std::vector<std::string_view> characters;
  characters.reserve(text.size());
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    characters.push_back(text.substr(0, bytes));
    text.remove_prefix(bytes);
  }
  return characters;
}

bool IsSpace(int32_t c) {
  if (c <= 0x7F) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsPrintable(int32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return false;
    default:
      return true;
  }
}

bool IsLetter(int32_t c) {
  const utf8proc_category_t category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDigit(int32_t c) {
  return utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

bool IsUpper(int32_t c) {
  return utf8proc_category(c) == UTF8PROC_CATEGORY_LU;
}

bool IsLower(int32_t c) {
  return utf8proc_category(c) == UTF8PROC_CATEGORY_LL;
}

std::string_view StripSpace(std::string_view text, Side side) {
  return Strip(text, side, [](std::string_view c) { return Valid(c) && IsSpace(CodePoint(c)); });
}

std::string_view StripCharacters(std::string_view text, std::string_view characters, Side side) {
  const std::vector<std::string_view> set = Characters(characters);
  return Strip(text, side, [&set](std::string_view c) {
    for (const std::string_view member : set) {
      if (member == c) return true;
    }
    return false;
  });
}

std::string ToUpper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const std::string_view c : Characters(text)) {
    if (Valid(c)) {
      AppendUpper(CodePoint(c), &out);
    } else {
      out.append(c);
    }
  }
  return out;
}

std::string ToLower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const std::string_view c : Characters(text)) {
    if (Valid(c)) {
      AppendUtf8(utf8proc_tolower(CodePoint(c)), &out);
    } else {
      out.append(c);
    }
  }
  return out;
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return "";
  const size_t first = CharacterBytes(text);
  std::string out;
  if (Valid(text.substr(0, first))) {
    AppendUtf8(utf8proc_totitle(CodePoint(text)), &out);
  } else {
    out.append(text.substr(0, first));
  }
  return out + ToLower(text.substr(first));
}

std::string TitleCase(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (const std::string_view c : Characters(text)) {
    const bool cased = Valid(c) && IsLetter(CodePoint(c));
    if (!cased) {
      out.append(c);
    } else {
      AppendUtf8(in_word ? utf8proc_tolower(CodePoint(c)) : utf8proc_totitle(CodePoint(c)), &out);
    }
    in_word = cased;
  }
  return out;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    size_t bytes = CharacterBytes(text.substr(i));
    const bool ends = Valid(text.substr(i, bytes)) && EndsLine(CodePoint(text.substr(i)));
    if (ends && text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') bytes = 2;
    i += bytes;
    if (!ends) continue;
    lines.push_back(text.substr(start, i - start - (keep_ends ? 0 : bytes)));
    start = i;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace spin::jinja
