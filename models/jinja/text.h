// Python's view of a string: code points, white space and letter case, over UTF-8 bytes.
//
// Invalid bytes count as one character each and are kept as they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spin::jinja {

// Bytes of the character that starts `text` (at least 1). REQUIRES: text is not empty.
size_t CharacterBytes(std::string_view text);

// The code point of the character that starts `text`; an invalid byte is its own value.
int32_t CodePoint(std::string_view text);

void AppendUtf8(int32_t code_point, std::string* out);

size_t CharacterCount(std::string_view text);

// One view per character.
std::vector<std::string_view> Characters(std::string_view text);

// str.isspace() of one character.
bool IsSpace(int32_t code_point);
// str.isprintable() of one character.
bool IsPrintable(int32_t code_point);
bool IsLetter(int32_t code_point);
bool IsDigit(int32_t code_point);
bool IsUpper(int32_t code_point);
bool IsLower(int32_t code_point);

enum class Side { kLeft, kRight, kBoth };

// str.strip(), lstrip(), rstrip(): white space.
std::string_view StripSpace(std::string_view text, Side side);
// The same with a set of characters.
std::string_view StripCharacters(std::string_view text, std::string_view characters, Side side);

std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
// First character upper, the others lower.
std::string Capitalize(std::string_view text);
// str.title(): every run of letters capitalised.
std::string TitleCase(std::string_view text);

// str.splitlines().
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);

}  // namespace spin::jinja
