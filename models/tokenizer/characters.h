// Questions about single characters that tokenizer.json files ask outside their patterns, and the
// bridge to newer Unicode versions.
//
// The reference implementation knows Unicode 16; PCRE2 10.42 knows 14 and utf8proc 2.8 knows 15.
// The few characters in between are answered from a table (newer_characters.cc), so that results do
// not depend on the library's age.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spin {

// Unicode's White_Space.
bool IsWhiteSpace(uint32_t code_point);

// \w of Rust's regex crate: Alphabetic, marks, decimal digits, connectors, joiners.
bool IsWordCharacter(uint32_t code_point);

// General categories Nd, Nl, No (as Rust's char::is_numeric).
bool IsNumeric(uint32_t code_point);

// `text` (valid UTF-8) for matching by an older Unicode: each character it may not know is replaced
// by a known one of the same category and length in UTF-8, so that positions stay. `text` itself
// when there is none (almost always), else a view of `*storage`.
std::string_view WithKnownCharacters(std::string_view text, std::string* storage);

}  // namespace spin
