#include "models/jinja/string_literal.h"

#include <cstdint>

#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

int DigitValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// Reads `digits` hexadecimal digits at `at` as a code point.
absl::Status AppendHex(std::string_view body, size_t at, size_t digits, std::string* out) {
  if (body.size() - at < digits) return InvalidArgument("a \\x, \\u or \\U escape is too short");
  int64_t code_point = 0;
  for (size_t i = 0; i < digits; ++i) {
    const int digit = DigitValue(body[at + i]);
    if (digit > 15) return InvalidArgument("a \\x, \\u or \\U escape needs %d digits", digits);
    code_point = code_point * 16 + digit;
  }
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) {
    return InvalidArgument("an escape is not a Unicode character");
  }
  AppendUtf8(static_cast<int32_t>(code_point), out);
  return absl::OkStatus();
}

// The character of a one-letter escape, or 0.
char SimpleEscape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return 0;
  }
}

}  // namespace

absl::StatusOr<std::string> UnescapeString(std::string_view body) {
  std::string out;
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '\\' || i + 1 == body.size()) {
      out.push_back(body[i]);
      continue;
    }
    const char c = body[++i];
    if (const char simple = SimpleEscape(c); simple != 0) {
      out.push_back(simple);
    } else if (c == '\n') {
      // A line break after a backslash is no part of the string.
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      SPIN_RETURN_IF_ERROR(AppendHex(body, i + 1, digits, &out));
      i += digits;
    } else if (c == 'N') {
      return InvalidArgument("\\N{...} escapes are not supported");
    } else if (DigitValue(c) < 8) {
      int32_t code_point = DigitValue(c);
      for (int n = 0; n < 2 && i + 1 < body.size() && DigitValue(body[i + 1]) < 8; ++n) {
        code_point = code_point * 8 + DigitValue(body[++i]);
      }
      AppendUtf8(code_point, &out);
    } else {
      out.push_back('\\');
      out.push_back(c);
    }
  }
  return out;
}

}  // namespace spin::jinja
