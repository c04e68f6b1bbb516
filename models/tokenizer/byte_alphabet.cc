#include "models/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

constexpr int kAlphabetEnd = 0x100 + 68;

constexpr bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// Code point -> byte, -1 outside the alphabet.
constexpr std::array<int16_t, kAlphabetEnd> MakeTable() {
  std::array<int16_t, kAlphabetEnd> table = {};
  for (int16_t& entry : table) entry = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    table[StandsForItself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return table;
}

constexpr std::array<int16_t, kAlphabetEnd> kByteOf = MakeTable();
static_assert(kByteOf[0x120] == ' ' && kByteOf[kAlphabetEnd - 1] == 0xAD);

}  // namespace

std::optional<std::string> BytesOfAlphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = DecodeUtf8(text, at);
    if (c.kind != Utf8Char::Kind::kValid || c.code_point >= kByteOf.size()) return std::nullopt;
    const int byte = kByteOf[c.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    at += c.length;
  }
  return bytes;
}

}  // namespace spin
