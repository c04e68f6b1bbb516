#include "models/tokenizer/tokenizer.h"

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <utility>

#include "common/mapped_file.h"
#include "models/tokenizer/byte_alphabet.h"
#include "models/tokenizer/tokenizer_json.h"
#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
    const std::vector<AddedToken>& added = parts_.added_tokens.tokens();
    int vocab_size = parts_.model.num_ids();
    for (const AddedToken& token : added) vocab_size = std::max(vocab_size, token.id + 1);
    bytes_.resize(vocab_size);
    special_.resize(vocab_size);
    for (TokenId id = 0; id < parts_.model.num_ids(); ++id)
      bytes_[id] = parts_.model.TokenBytes(id);
    std::string storage;
    for (const AddedToken& token : added) {
      added_ids_.emplace(token.content, token.id);
      special_[token.id] = token.special;
      // The reference decodes an added token like any other, in the byte alphabet when it can, and a normalised one
      // from its normal form.
      const std::string content(token.normalized
                                    ? parts_.normalizer.Normalize(token.content, &storage)
                                    : std::string_view(token.content));
      bytes_[token.id] = added_bytes_.emplace_back(BytesOfAlphabet(content).value_or(content));
    }
    if (KeepsEveryByte()) {
      for (const std::string_view bytes : bytes_)
        max_token_bytes_ = std::max(max_token_bytes_, bytes.size());
      for (const AddedToken& token : added)
        max_token_bytes_ = std::max(max_token_bytes_, token.content.size());
    }
  }

  std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const override {
    std::string repaired;
    if (!IsValidUtf8(text)) {
      AppendUtf8Lossy(text, &repaired);
      text = repaired;
    }
    std::vector<TokenId> ids;
    ids.reserve(text.size() / 3 + 8);
    if (add_special_tokens) ids.insert(ids.end(), parts_.prefix.begin(), parts_.prefix.end());
    EncodeText(text, &ids);
    if (add_special_tokens) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
  }

  std::string Decode(std::span<const TokenId> ids, bool skip_special_tokens) const override {
    std::string bytes;
    for (const TokenId id : ids) {
      if (!skip_special_tokens || !IsSpecial(id)) bytes += TokenBytes(id);
    }
    if (IsValidUtf8(bytes)) return bytes;
    std::string text;
    AppendUtf8Lossy(bytes, &text);
    return text;
  }

  std::string_view TokenBytes(TokenId id) const override {
    return id >= 0 && id < vocab_size() ? bytes_[id] : std::string_view();
  }

  bool IsSpecial(TokenId id) const override { return id >= 0 && id < vocab_size() && special_[id]; }

  std::optional<TokenId> FindToken(std::string_view content) const override {
    const auto added = added_ids_.find(std::string(content));
    if (added != added_ids_.end()) return added->second;
    return parts_.model.Find(content);
  }

  std::size_t max_token_bytes() const override { return max_token_bytes_; }

  int vocab_size() const override { return static_cast<int>(bytes_.size()); }

 private:
  // Each byte of a text is in exactly one token, of those that are as long as what they stand for.
  bool KeepsEveryByte() const {
    const bool strips =
        std::ranges::any_of(parts_.added_tokens.tokens(),
                            [](const AddedToken& token) { return token.lstrip || token.rstrip; });
    return parts_.normalizer.kind() == Normalizer::Kind::kNone && !strips &&
           !parts_.pretokenizer.removes_text() && parts_.model.has_all_bytes();
  }

  void EncodeText(std::string_view text, std::vector<TokenId>* ids) const {
    Pretokenizer::Scratch scratch(parts_.pretokenizer);
    std::string normalized;
    std::vector<TextPart> raw_parts;
    std::vector<TextPart> parts;
    std::vector<std::string_view> words;
    parts_.added_tokens.Split(text, /*normalized=*/false, &raw_parts);
    for (const TextPart& raw : raw_parts) {
      if (raw.id >= 0) {
        ids->push_back(raw.id);
        continue;
      }
      parts.clear();
      parts_.added_tokens.Split(parts_.normalizer.Normalize(raw.text, &normalized),
                                /*normalized=*/true, &parts);
      for (const TextPart& part : parts) {
        if (part.id >= 0) {
          ids->push_back(part.id);
          continue;
        }
        parts_.pretokenizer.Split(part.text, &scratch, &words);
        for (const std::string_view word : words) parts_.model.Encode(word, ids);
      }
    }
  }

  TokenizerParts parts_;
  std::deque<std::string> added_bytes_;  // what added tokens decode to
  std::vector<std::string_view> bytes_;  // [vocab_size], into parts_.model and added_bytes_
  std::vector<bool> special_;            // [vocab_size]
  std::unordered_map<std::string, TokenId> added_ids_;
  std::size_t max_token_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& path) {
  SPIN_ASSIGN_OR_RETURN(const std::string json, ReadTextFile(path));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = FromJson(json);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), path);
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view json) {
  SPIN_ASSIGN_OR_RETURN(TokenizerParts parts, ParseTokenizerJson(json));
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace spin
