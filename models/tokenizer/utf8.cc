#include "models/tokenizer/utf8.h"

#include <cstring>

namespace spin {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct LeadByte {
  int length = 0;  // of the whole character; 0: cannot start one
  uint8_t low = 0x80;
  uint8_t high = 0xBF;  // what the second byte may be
};

LeadByte Classify(uint8_t lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};  // no overlong forms
  if (lead == 0xED) return {3, 0x80, 0x9F};  // no surrogates
  if (lead >= 0xE1 && lead <= 0xEF) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};  // nothing above U+10FFFF
  return {};
}

}  // namespace

Utf8Char DecodeUtf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1, Utf8Char::Kind::kValid};
  const LeadByte rule = Classify(lead);
  if (rule.length == 0) return {0, 1, Utf8Char::Kind::kInvalid};
  uint32_t code_point = lead & (0xFFu >> (rule.length + 1));
  for (int i = 1; i < rule.length; ++i) {
    if (at + i >= text.size()) return {0, i, Utf8Char::Kind::kTruncated};
    const uint8_t next = byte(at + i);
    const bool fits = i == 1 ? next >= rule.low && next <= rule.high : (next & 0xC0) == 0x80;
    if (!fits) return {0, i, Utf8Char::Kind::kInvalid};
    code_point = code_point << 6 | (next & 0x3Fu);
  }
  return {code_point, rule.length, Utf8Char::Kind::kValid};
}

void AppendUtf8(uint32_t code_point, std::string* out) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  const auto put_tail = [&](int shift) { put(0x80 | (code_point >> shift & 0x3F)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put_tail(0);
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put_tail(6);
    put_tail(0);
  } else {
    put(0xF0 | code_point >> 18);
    put_tail(12);
    put_tail(6);
    put_tail(0);
  }
}

std::size_t AsciiPrefix(std::string_view text) {
  std::size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (at < text.size() && static_cast<uint8_t>(text[at]) < 0x80) ++at;
  return at;
}

bool IsValidUtf8(std::string_view text) {
  std::size_t at = AsciiPrefix(text);
  while (at < text.size()) {
    const Utf8Char c = DecodeUtf8(text, at);
    if (c.kind != Utf8Char::Kind::kValid) return false;
    at += c.length;
    if (c.length == 1) at += AsciiPrefix(text.substr(at));
  }
  return true;
}

std::size_t AppendWholeUtf8(std::string_view bytes, std::string* out) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t ascii = AsciiPrefix(bytes.substr(at));
    out->append(bytes.substr(at, ascii));
    at += ascii;
    if (at == bytes.size()) break;
    const Utf8Char c = DecodeUtf8(bytes, at);
    if (c.kind == Utf8Char::Kind::kTruncated) break;
    out->append(c.kind == Utf8Char::Kind::kValid ? bytes.substr(at, c.length) : kReplacement);
    at += c.length;
  }
  return at;
}

void AppendUtf8Lossy(std::string_view bytes, std::string* out) {
  if (AppendWholeUtf8(bytes, out) < bytes.size()) out->append(kReplacement);
}

}  // namespace spin
