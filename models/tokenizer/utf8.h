// UTF-8, strictly as Unicode's table 3-7 allows it, and the replacement of everything else by
// U+FFFD.
//
// Replacement follows "substitution of maximal subparts" (The Unicode Standard, section 3.9): one
// U+FFFD for each longest run of bytes that begins a character and cannot go on. Rust's
// from_utf8_lossy and Python's errors="replace" do the same, hence so does Hugging Face's decoder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace spin {

struct Utf8Char {
  enum class Kind : uint8_t {
    kValid,
    kInvalid,    // `length` bytes are one maximal subpart: one U+FFFD
    kTruncated,  // the text ends inside a character that more bytes could complete
  };
  uint32_t code_point = 0;  // only when kValid
  int length = 1;           // bytes, 1..4
  Kind kind = Kind::kValid;
};

// The character at byte `at`. REQUIRES: at < text.size().
Utf8Char DecodeUtf8(std::string_view text, std::size_t at);

// Appends `code_point` as UTF-8. REQUIRES: a scalar value.
void AppendUtf8(uint32_t code_point, std::string* out);

// The length of the longest prefix of `text` that is ASCII.
std::size_t AsciiPrefix(std::string_view text);

bool IsValidUtf8(std::string_view text);

// Appends `bytes` with U+FFFD for what is not UTF-8, but stops before a character that the end of
// `bytes` cuts off (at most 3 bytes). Returns how many bytes were taken.
std::size_t AppendWholeUtf8(std::string_view bytes, std::string* out);

// The same, with one U+FFFD for a character that is cut off.
void AppendUtf8Lossy(std::string_view bytes, std::string* out);

}  // namespace spin
