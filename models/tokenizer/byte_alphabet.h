// The alphabet of byte-level BPE: tokenizer.json writes each byte of a token as one printable
// character.
//
// Source: bytes_to_unicode of GPT-2 (Radford et al., 2019). The bytes '!'..'~', 0xA1..0xAC and
// 0xAE..0xFF stand for themselves; the other 68, in order, are U+0100, U+0101, ... (so a space is
// U+0120).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spin {

// The bytes that `text` (UTF-8) spells, or nothing when it has a character outside the alphabet.
std::optional<std::string> BytesOfAlphabet(std::string_view text);

}  // namespace spin
