// Runs a tokenizer.json over strings from standard input, for compare_tokenizers.py and
// make_tokenizer_fixtures.py.
//
//   in:   repeated { u32 bytes, the text }
//   out:  repeated { u32 n, n x i32: Encode without special tokens; the same with them; u32 bytes,
//   the text decoded
//         from the latter with special tokens skipped; the same with them kept; the same by
//         IncrementalDecoder }
// Integers are in the byte order of the machine. Exits with the error on standard error when the
// file does not load.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"
#include "models/tokenizer/incremental_decoder.h"
#include "models/tokenizer/tokenizer.h"

namespace {

using spin::TokenId;

void Put(const void* data, std::size_t bytes) {
  std::fwrite(data, 1, bytes, stdout);
}

void PutIds(std::span<const TokenId> ids) {
  const uint32_t n = static_cast<uint32_t>(ids.size());
  Put(&n, sizeof(n));
  Put(ids.data(), ids.size_bytes());
}

void PutText(const std::string& text) {
  const uint32_t n = static_cast<uint32_t>(text.size());
  Put(&n, sizeof(n));
  Put(text.data(), n);
}

std::string DecodeInSteps(const spin::Tokenizer& tokenizer, std::span<const TokenId> ids) {
  spin::IncrementalDecoder decoder(&tokenizer, {.stop = {}, .skip_special_tokens = false});
  std::string text;
  for (const TokenId id : ids) text += decoder.Push(id).text;
  return text + decoder.Flush();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s TOKENIZER_JSON < texts > results\n", argv[0]);
    return 2;
  }
  const auto tokenizer = spin::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", spin::MessageOf(tokenizer.status()).c_str());
    return 1;
  }
  uint32_t bytes = 0;
  while (std::fread(&bytes, sizeof(bytes), 1, stdin) == 1) {
    std::string text(bytes, '\0');
    if (std::fread(text.data(), 1, bytes, stdin) != bytes) return 1;
    PutIds((*tokenizer)->Encode(text, false));
    const std::vector<TokenId> ids = (*tokenizer)->Encode(text, true);
    PutIds(ids);
    PutText((*tokenizer)->Decode(ids, true));
    PutText((*tokenizer)->Decode(ids, false));
    PutText(DecodeInSteps(**tokenizer, ids));
  }
  return 0;
}
