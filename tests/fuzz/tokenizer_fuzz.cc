#include "tests/fuzz/tokenizer_fuzz.h"

#include <string>
#include <vector>

#include "common/check.h"
#include "models/tokenizer/incremental_decoder.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/utf8.h"

namespace spin {

bool FuzzTokenizerJson(std::string_view data) {
  const auto tokenizer = Tokenizer::FromJson(data);
  if (!tokenizer.ok()) {
    SPIN_CHECK(!MessageOf(tokenizer.status()).empty());
    return false;
  }
  const Tokenizer& t = **tokenizer;
  for (const std::string_view text :
       {"", "abc a <s>tool 12 \n\n x", "e\xCC\x81\xFF\xE4\xB8\xAD</s>",
        "aaaaaaaaaaaaaaaaaaaaaaaaaab"}) {
    const std::vector<TokenId> ids = t.Encode(text, true);
    for (const TokenId id : ids) SPIN_CHECK(id >= 0 && id < t.vocab_size());
    const std::string decoded = t.Decode(ids, false);
    SPIN_CHECK(IsValidUtf8(decoded));
    IncrementalDecoder decoder(&t, {.stop = {}, .skip_special_tokens = false});
    std::string pieces;
    for (const TokenId id : ids) pieces += decoder.Push(id).text;
    SPIN_CHECK(pieces + decoder.Flush() == decoded);
  }
  for (TokenId id = -1; id <= 300; ++id) t.TokenBytes(id);
  return true;
}

}  // namespace spin
