#include "models/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "models/tokenizer/characters.h"
#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

// The character that ends right before byte `end`. REQUIRES: end > 0, valid UTF-8.
Utf8Char CharBefore(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return DecodeUtf8(text, begin);
}

bool TouchesWord(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0 && IsWordCharacter(CharBefore(text, begin).code_point)) return true;
  return end < text.size() && IsWordCharacter(DecodeUtf8(text, end).code_point);
}

std::size_t SkipSpaceBack(std::string_view text, std::size_t at, std::size_t least) {
  while (at > least) {
    const Utf8Char c = CharBefore(text, at);
    if (!IsWhiteSpace(c.code_point)) break;
    at -= c.length;
  }
  return at;
}

std::size_t SkipSpace(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Utf8Char c = DecodeUtf8(text, at);
    if (!IsWhiteSpace(c.code_point)) break;
    at += c.length;
  }
  return at;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer)
    : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  std::string storage;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.normalized) {
      normalized_.Add(normalizer.Normalize(token.content, &storage), static_cast<int32_t>(i));
    } else {
      raw_.Add(token.content, static_cast<int32_t>(i));
    }
  }
}

void AddedTokens::Split(std::string_view text, bool normalized,
                        std::vector<TextPart>* parts) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  std::size_t done = 0;  // everything before is in `parts`
  std::size_t at = trie.children.empty() ? text.size() : 0;
  while (true) {
    while (at < text.size() && !trie.starts[static_cast<uint8_t>(text[at])]) ++at;
    if (at >= text.size()) break;
    std::size_t length = 0;
    const int32_t index = trie.Longest(text, at, &length);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    std::size_t begin = at;
    std::size_t end = at + length;
    at = end;
    if (token.single_word && TouchesWord(text, begin, end)) continue;
    if (token.lstrip) begin = SkipSpaceBack(text, begin, std::min(done, begin));
    if (token.rstrip) end = SkipSpace(text, end);
    if (done < begin) parts->push_back({text.substr(done, begin - done), -1});
    parts->push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) parts->push_back({text.substr(done), -1});
}

void AddedTokens::Trie::Add(std::string_view content, int32_t token) {
  starts[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char c : content) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<uint8_t>(c);
    const auto [child, added] = children.emplace(edge, static_cast<uint32_t>(ends.size()));
    if (added) ends.push_back(-1);
    node = child->second;
  }
  if (ends[node] < 0) ends[node] = token;
}

int32_t AddedTokens::Trie::Longest(std::string_view text, std::size_t at,
                                   std::size_t* length) const {
  int32_t best = -1;
  uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto child = children.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (child == children.end()) break;
    node = child->second;
    if (ends[node] < 0) continue;
    best = ends[node];
    *length = i + 1 - at;
  }
  return best;
}

}  // namespace spin
