// The BPE model of a tokenizer.json: bytes of one word in, token ids out (Sennrich et al., 2016,
// over bytes as GPT-2).
//
// Merging takes the pair of lowest rank, leftmost first, until no pair of neighbours is in the
// merge list. Words that are one token in the end (most words of a text) are answered by one
// look-up: at start the model merges every token of the vocabulary by itself and remembers which
// ones come out whole. So there is no cache, and a model is immutable: any thread may call any
// method. Long words use a heap, n log n in their bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/status.h"
#include "models/tokenizer/pair_table.h"
#include "models/tokenizer/token_id.h"

namespace spin {

class BpeModel {
 public:
  // Ids at or above this are refused: tables are indexed by id.
  static constexpr TokenId kMaxTokens = 1 << 21;

  struct Spec {
    // Content in the byte alphabet, and id in [0, kMaxTokens).
    std::vector<std::pair<std::string, TokenId>> vocab = {};
    // The pairs to merge, by rank.
    std::vector<std::pair<std::string, std::string>> merges = {};
    // A word that is a token is that token, whatever the merges say.
    bool ignore_merges = false;
    // Stands for bytes without a token; without it they are dropped.
    std::optional<std::string> unk_token = {};
    // One unk_token for a run of such bytes.
    bool fuse_unk = false;
  };

  // InvalidArgument when ids clash, or a merge names a token that the vocabulary lacks.
  static absl::StatusOr<BpeModel> Create(const Spec& spec);

  // Appends the ids of `word` (raw bytes, as the pre-tokenizer cut it).
  void Encode(std::string_view word, std::vector<TokenId>* ids) const;

  // The bytes of a token: spelled in the byte alphabet if all of it is, else the content itself.
  std::string_view TokenBytes(TokenId id) const;
  std::optional<TokenId> Find(std::string_view content) const;
  bool HasToken(TokenId id) const { return id >= 0 && id < num_ids() && tokens_[id].exists; }
  // Every byte has a token, so that none is dropped or taken together with others as unknown.
  bool has_all_bytes() const;
  // One more than the largest id.
  int num_ids() const { return static_cast<int>(tokens_.size()); }

 private:
  struct Token {
    uint32_t offset = 0;  // in bytes_
    uint32_t length = 0;
    bool exists = false;
    bool whole = false;  // the word of these bytes encodes to this one token
  };

  absl::Status AddVocab(const Spec& spec);
  absl::Status AddMerges(const Spec& spec);
  void FindWholeTokens(bool ignore_merges);
  // The token spelled by `bytes`, -1 if none.
  TokenId Lookup(std::string_view bytes) const;
  std::vector<TokenId> Symbols(std::string_view word) const;
  void MergeShort(std::span<TokenId> symbols, std::vector<TokenId>* ids) const;
  void MergeLong(std::span<TokenId> symbols, std::vector<TokenId>* ids) const;
  void Merge(std::string_view word, std::vector<TokenId>* ids) const;

  std::string bytes_;          // of all tokens, one after the other
  std::vector<Token> tokens_;  // [num_ids]
  std::vector<TokenId>
      slots_;                // open hash table over token bytes, a power of two in size; -1 is free
  std::size_t longest_ = 0;  // bytes of the longest token in slots_
  std::unordered_map<std::string, TokenId>
      other_;                               // tokens whose content is not in the byte alphabet
  std::array<TokenId, 256> byte_ids_ = {};  // -1: no token for that byte
  PairTable ranks_;                         // (left, right) -> rank
  std::vector<TokenId> merged_;             // [rank] -> the token that the merge makes
  TokenId unk_ = -1;
  bool fuse_unk_ = false;
};

}  // namespace spin
