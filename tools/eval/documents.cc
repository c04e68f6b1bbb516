#include "tools/eval/documents.h"

#include <algorithm>
#include <utility>

#include "common/random.h"
#include "tools/eval/prose.h"
#include "tools/eval/testbed_tasks.h"

namespace spin::eval {
namespace {

using Tokens = std::vector<int32_t>;

Tokens RandomTokens(int32_t count, int32_t vocab, uint64_t seed) {
  Random random(seed);
  Tokens tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random.Below(static_cast<uint32_t>(vocab)));
  }
  return tokens;
}

// At least `count` tokens of prose.
Tokens ProseTokens(const Tokenizer& tokenizer, int32_t count, uint64_t seed) {
  Tokens tokens;
  for (int32_t sentences = count / 16 + 8; static_cast<int32_t>(tokens.size()) < count;
       sentences *= 2) {
    tokens = tokenizer.Encode(JoinSentences(MakeProse(seed, sentences)), false);
  }
  return tokens;
}

Tokens Cut(const Tokens& special, const Tokens& text, int64_t begin, int32_t count) {
  Tokens tokens = special;
  const auto first = text.begin() + begin;
  tokens.insert(tokens.end(), first, first + (count - static_cast<int32_t>(special.size())));
  return tokens;
}

}  // namespace

std::string_view DocumentLanguage(const ModelFolder& folder) {
  if (folder.tokenizer != nullptr) return "made-up prose";
  return SpeaksTestbed(folder) ? "the testbed's language" : "random token ids";
}

absl::StatusOr<std::vector<Tokens>> MakeDocuments(const ModelFolder& folder,
                                                  const DocumentOptions& options) {
  std::vector<Tokens> documents;
  if (folder.tokenizer == nullptr) {
    if (!options.text.empty()) {
      return InvalidArgument("the model folder has no tokenizer.json: it cannot read a text");
    }
    for (int32_t i = 0; i < options.count; ++i) {
      const uint64_t seed = options.seed + static_cast<uint64_t>(i);
      if (SpeaksTestbed(folder)) {
        SPIN_ASSIGN_OR_RETURN(Tokens document, MakeTestbedDocument(options.tokens, seed));
        documents.push_back(std::move(document));
      } else {
        documents.push_back(RandomTokens(options.tokens, folder.config.vocab_size, seed));
      }
    }
    return documents;
  }
  const Tokens special = folder.tokenizer->Encode("", true);
  const int32_t own = options.tokens - static_cast<int32_t>(special.size());
  if (options.text.empty()) {
    for (int32_t i = 0; i < options.count; ++i) {
      const uint64_t seed = options.seed + static_cast<uint64_t>(i);
      documents.push_back(
          Cut(special, ProseTokens(*folder.tokenizer, own, seed), 0, options.tokens));
    }
    return documents;
  }
  const Tokens text = folder.tokenizer->Encode(options.text, false);
  const int64_t room = static_cast<int64_t>(text.size()) - own;
  if (room < 0) {
    return InvalidArgument(
        "the text has %d tokens, a document %d: give a longer text, or a shorter context",
        text.size(), own);
  }
  for (int32_t i = 0; i < options.count; ++i) {
    const int64_t begin = options.count > 1 ? room * i / (options.count - 1) : 0;
    documents.push_back(Cut(special, text, begin, options.tokens));
  }
  return documents;
}

}  // namespace spin::eval
