// The added tokens of a tokenizer.json: strings that become one token wherever they stand in a
// text, found before any pre-tokenisation.
//
// Those with `normalized` false are looked for in the text as it came, the others in what is left
// after normalisation, in their own normalised form. The leftmost, then longest, wins. Immutable;
// any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/tokenizer/normalizer.h"
#include "models/tokenizer/token_id.h"

namespace spin {

struct AddedToken {
  std::string content;
  TokenId id = -1;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;       // and on its right
  bool normalized = false;
  bool special = false;  // left out of decoded text on request
};

// A stretch of text, or an added token.
struct TextPart {
  std::string_view text;  // for a token: what it took, white space included
  TokenId id = -1;        // -1: text
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // Tokens without content are ignored, as Hugging Face does.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer);

  // Appends the parts of `text`; no text part is empty. `normalized` says which of the two groups
  // to look for.
  void Split(std::string_view text, bool normalized, std::vector<TextPart>* parts) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  // A trie over bytes; node 0 is the root.
  struct Trie {
    std::unordered_map<uint64_t, uint32_t> children;  // node << 8 | byte -> node
    std::vector<int32_t> ends = {-1};   // [node] -> index into tokens_, -1: no token ends here
    std::array<bool, 256> starts = {};  // bytes that a token begins with

    void Add(std::string_view content, int32_t token);
    // The longest token at byte `at`, -1 if none; its length in bytes goes to `*length`.
    int32_t Longest(std::string_view text, std::size_t at, std::size_t* length) const;
  };

  std::vector<AddedToken> tokens_;
  Trie raw_;         // normalized == false
  Trie normalized_;  // normalized == true
};

}  // namespace spin
