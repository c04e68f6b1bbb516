// A tokenizer.json taken apart into what encodes and decodes with it.
#pragma once

#include <string_view>
#include <vector>

#include "common/status.h"
#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/bpe_model.h"
#include "models/tokenizer/normalizer.h"
#include "models/tokenizer/pretokenizer.h"
#include "models/tokenizer/token_id.h"

namespace spin {

struct TokenizerParts {
  Normalizer normalizer;
  AddedTokens added_tokens;
  Pretokenizer pretokenizer;
  BpeModel model;
  std::vector<TokenId> prefix;  // ids that add_special_tokens puts before a text
  std::vector<TokenId> suffix;  // and after it
};

// Errors name the part of the file and what is wrong with it. "truncation" and "padding" are
// ignored: a server never cuts or pads what it is sent.
absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view text);

}  // namespace spin
