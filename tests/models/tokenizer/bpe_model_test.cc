// Goal: merging is exact for words of any length, long words are not quadratic, and bad
// vocabularies are refused. Method: random merge lists, compared with the definition written out
// plainly.
#include "models/tokenizer/bpe_model.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <string>

#include "common/random.h"

namespace spin {
namespace {

BpeModel::Spec RandomSpec(uint64_t seed, int merges) {
  Random random(seed);
  BpeModel::Spec spec;
  std::vector<std::string> tokens = {"a", "b", "c"};
  std::map<std::string, TokenId> ids;
  for (const std::string& token : tokens) ids.emplace(token, static_cast<TokenId>(ids.size()));
  for (int i = 0; i < merges; ++i) {
    const std::string left = tokens[random.Below(tokens.size())];
    const std::string right = tokens[random.Below(tokens.size())];
    if (std::find(spec.merges.begin(), spec.merges.end(), std::pair(left, right)) !=
        spec.merges.end())
      continue;
    if (ids.emplace(left + right, static_cast<TokenId>(ids.size())).second)
      tokens.push_back(left + right);
    spec.merges.emplace_back(left, right);
  }
  for (const auto& [content, id] : ids) spec.vocab.emplace_back(content, id);
  return spec;
}

// The definition: while some pair of neighbours is in the list, merge the leftmost of lowest rank.
std::vector<TokenId> PlainBpe(const BpeModel::Spec& spec, const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    std::size_t best_rank = spec.merges.size();
    std::size_t best = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found =
          std::find(spec.merges.begin(), spec.merges.end(), std::pair(parts[i], parts[i + 1]));
      const std::size_t rank = static_cast<std::size_t>(found - spec.merges.begin());
      if (rank < best_rank) {
        best_rank = rank;
        best = i;
      }
    }
    if (best_rank == spec.merges.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& part : parts) {
    for (const auto& [content, id] : spec.vocab) {
      if (content == part) ids.push_back(id);
    }
  }
  return ids;
}

std::vector<TokenId> Encoded(const BpeModel& model, std::string_view word) {
  std::vector<TokenId> ids;
  model.Encode(word, &ids);
  return ids;
}

TEST_CASE("Words of any length merge as the definition says") {
  const uint64_t seed = GENERATE(range(1, 30));
  INFO("seed " << seed);
  const BpeModel::Spec spec = RandomSpec(seed, 25);
  const auto model = BpeModel::Create(spec);
  REQUIRE(model.ok());
  Random random(seed + 1000);
  for (const uint32_t length : {1u, 2u, 3u, 7u, 20u, 63u, 64u, 65u, 66u, 150u}) {
    std::string word;
    for (uint32_t i = 0; i < length; ++i) word += static_cast<char>('a' + random.Below(3));
    INFO(word);
    CHECK(Encoded(*model, word) == PlainBpe(spec, word));
  }
}

TEST_CASE("A token that its merges do not reach is used only when merges are ignored") {
  BpeModel::Spec spec{.vocab = {{"a", 0}, {"b", 1}, {"c", 2}, {"bc", 3}, {"ab", 4}, {"abc", 5}},
                      .merges = {{"a", "b"}}};
  CHECK(Encoded(*BpeModel::Create(spec), "abc") == std::vector<TokenId>{4, 2});
  CHECK(Encoded(*BpeModel::Create(spec), "bc") == std::vector<TokenId>{1, 2});
  spec.ignore_merges = true;
  CHECK(Encoded(*BpeModel::Create(spec), "abc") == std::vector<TokenId>{5});
  CHECK(Encoded(*BpeModel::Create(spec), "abcc") == std::vector<TokenId>{4, 2, 2});
}

TEST_CASE("Bytes without a token are dropped, or are the unknown token") {
  BpeModel::Spec spec{.vocab = {{"a", 0}, {"?", 1}}};
  CHECK(Encoded(*BpeModel::Create(spec), "axya") == std::vector<TokenId>{0, 0});
  spec.unk_token = "?";
  CHECK(Encoded(*BpeModel::Create(spec), "axya") == std::vector<TokenId>{0, 1, 1, 0});
  spec.fuse_unk = true;
  CHECK(Encoded(*BpeModel::Create(spec), "axyax") == std::vector<TokenId>{0, 1, 0, 1});
  spec.unk_token = "nowhere";
  CHECK_FALSE(BpeModel::Create(spec).ok());
}

TEST_CASE("Tokens are bytes in the byte alphabet, else what they say") {
  const auto model = BpeModel::Create({.vocab = {{"\xC4\xA0"
                                                  "a",
                                                  0},
                                                 {"two words", 1},
                                                 {"\xC3\xA9", 7}}});
  REQUIRE(model.ok());
  CHECK(model->TokenBytes(0) == " a");
  CHECK(model->TokenBytes(1) == "two words");
  CHECK(model->TokenBytes(7) == "\xE9");
  CHECK(model->TokenBytes(5).empty());
  CHECK(model->TokenBytes(-1).empty());
  CHECK(model->TokenBytes(8).empty());
  CHECK(model->num_ids() == 8);
  CHECK(model->Find("\xC4\xA0"
                    "a") == 0);
  CHECK(model->Find("two words") == 1);
  CHECK_FALSE(model->Find(" a").has_value());
}

TEST_CASE("Vocabularies that contradict themselves are refused") {
  CHECK_FALSE(BpeModel::Create({.vocab = {{"a", 0}, {"b", 0}}}).ok());
  CHECK_FALSE(BpeModel::Create({.vocab = {{"a", -1}}}).ok());
  CHECK_FALSE(BpeModel::Create({.vocab = {{"a", BpeModel::kMaxTokens}}}).ok());
  CHECK_FALSE(BpeModel::Create({.vocab = {{"a", 0}}, .merges = {{"a", "a"}}}).ok());
  CHECK_FALSE(BpeModel::Create({.vocab = {{"aa", 0}}, .merges = {{"a", "a"}}}).ok());
  CHECK(BpeModel::Create({}).ok());
}

TEST_CASE("A word of a million bytes takes n log n") {
  const BpeModel::Spec spec = RandomSpec(3, 40);
  const auto model = BpeModel::Create(spec);
  REQUIRE(model.ok());
  Random random(5);
  std::string word;
  for (int i = 0; i < 1'000'000; ++i) word += static_cast<char>('a' + random.Below(3));
  std::size_t bytes = 0;
  for (const TokenId id : Encoded(*model, word)) bytes += model->TokenBytes(id).size();
  CHECK(bytes == word.size());
}

}  // namespace
}  // namespace spin
