// Text to token ids and back, exactly as Hugging Face `tokenizers` does for the model's own
// tokenizer.json.
//
// A Tokenizer is immutable after Load: any thread may call any const method at once.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "models/tokenizer/token_id.h"

namespace spin {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads `path` (a tokenizer.json). What the file asks for and this code does not know is an error
  // that names it; a corrupt or hostile file is an error too, never a crash.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view json);

  // Token ids of `text`. Added tokens inside the text are recognised, as Hugging Face does.
  // `add_special_tokens` adds what the file's post-processor says (Llama-3.1: <|begin_of_text|>
  // first). Invalid UTF-8 is taken as U+FFFD.
  virtual std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const = 0;

  // Text of `ids`; special tokens are left out on request, invalid UTF-8 becomes U+FFFD. Ids out of
  // range are skipped.
  virtual std::string Decode(std::span<const TokenId> ids, bool skip_special_tokens) const = 0;

  // The bytes that one token stands for (may be part of a UTF-8 character). Empty for ids without a
  // token.
  virtual std::string_view TokenBytes(TokenId id) const = 0;

  virtual bool IsSpecial(TokenId id) const = 0;
  virtual std::optional<TokenId> FindToken(std::string_view content) const = 0;

  // A text of more than n times so many bytes has more than n tokens. 0: this tokenizer drops or composes characters,
  // or takes white space along, so its texts have no such bound.
  virtual std::size_t max_token_bytes() const { return 0; }

  // One more than the largest id; at most the model's vocab_size, which may be padded.
  virtual int vocab_size() const = 0;
};

}  // namespace spin
