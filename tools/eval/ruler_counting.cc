#include "tools/eval/ruler_counting.h"

#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <numbers>
#include <set>
#include <string>
#include <vector>

#include "tools/eval/shuffle.h"
#include "tools/eval/words.h"

namespace spin::eval {
namespace {

constexpr int32_t kCommon = 10;  // words to name
// From here on words are repeated more often. RULER does so from 4,096 on, where these words, which are of several
// tokens, and the solved example leave no room.
constexpr int32_t kLongContext = 8192;

struct Repeats {
  int32_t common = 0, uncommon = 0;
};

struct WordList {
  std::string text;  // "1. anchor 2. lamp ..."
  std::vector<std::string> common;
};

std::string Numbered(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    text += absl::StrFormat("%s%d. %s", i > 0 ? " " : "", i + 1, words[i]);
  }
  return text;
}

WordList MakeWordList(int32_t num_words, Repeats repeats, Random& random) {
  const int32_t pool = std::max(2 * num_words, 256);
  WordList list;
  std::vector<std::string> all;
  for (const int32_t i : DrawDistinct(pool, num_words, random)) {
    const std::string word = DistinctWord(static_cast<uint32_t>(i));
    const bool common = static_cast<int32_t>(list.common.size()) < kCommon;
    all.insert(all.end(), static_cast<size_t>(common ? repeats.common : repeats.uncommon), word);
    if (common) list.common.push_back(word);
  }
  Shuffle(all, random);
  list.text = Numbered(all);
  return list;
}

class CommonWordsTask final : public TextTask {
 public:
  std::string name() const override { return "cwe"; }
  int32_t max_new() const override { return 120; }
  int32_t least_filler() const override { return kCommon + 1; }

  TextSample Make(int32_t filler, int32_t context, Random random) const override {
    const bool is_long = context >= kLongContext;
    const WordList example =
        MakeWordList(is_long ? 40 : 20, is_long ? Repeats{10, 3} : Repeats{3, 1}, random);
    const WordList list = MakeWordList(filler, is_long ? Repeats{30, 3} : Repeats{6, 1}, random);
    return {.prompt = Question(example) + " " + AnswerPrefix() + " " + Numbered(example.common) +
                      "\n" + Question(list),
            .answer_prefix = AnswerPrefix(),
            .references = list.common};
  }

 private:
  static std::string Question(const WordList& list) {
    return absl::StrFormat(
        "Below is a numbered list of words. In these words, some appear more often than others. "
        "Memorize the ones that "
        "appear most often.\n%s\nQuestion: What are the %d most common words in the above list?",
        list.text, kCommon);
  }
  static std::string AnswerPrefix() {
    return absl::StrFormat("Answer: The top %d words that appear most often in the list are:",
                           kCommon);
  }
};

class FrequentWordsTask final : public TextTask {
 public:
  std::string name() const override { return "fwe"; }
  int32_t max_new() const override { return 50; }
  int32_t least_filler() const override { return 64; }  // words

  // Rank k occurs filler * k^-2 / zeta(2) times; the first rank is noise.
  TextSample Make(int32_t filler, int32_t context, Random random) const override {
    constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;
    const std::vector<std::string> vocabulary = MakeVocabulary(std::max(context / 50, 8), random);
    std::vector<std::string> words;
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      const auto rank = static_cast<double>(i + 1);
      words.insert(words.end(), static_cast<size_t>(filler / (rank * rank * kZeta2)),
                   vocabulary[i]);
    }
    Shuffle(words, random);
    return {
        .prompt = absl::StrFormat(
            "Read the following coded text and track the frequency of each coded word. Find the "
            "three most "
            "frequently appeared coded words. %s\nQuestion: Do not provide any explanation. Please "
            "ignore the dots "
            "'....'. What are the three most frequently appeared words in the above coded text?",
            absl::StrJoin(words, " ")),
        .answer_prefix =
            "Answer: According to the coded text above, the three most frequently appeared words "
            "are:",
        .references = {vocabulary[1], vocabulary[2], vocabulary[3]}};
  }

 private:
  static std::vector<std::string> MakeVocabulary(int32_t size, Random& random) {
    std::vector<std::string> vocabulary = {"..."};
    std::set<std::string> used;
    while (static_cast<int32_t>(vocabulary.size()) < size) {
      std::string word;
      for (int i = 0; i < 6; ++i) word += static_cast<char>('a' + random.Below(26));
      if (used.insert(word).second) vocabulary.push_back(std::move(word));
    }
    return vocabulary;
  }
};

}  // namespace

std::unique_ptr<TextTask> MakeCommonWords() {
  return std::make_unique<CommonWordsTask>();
}

std::unique_ptr<TextTask> MakeFrequentWords() {
  return std::make_unique<FrequentWordsTask>();
}

}  // namespace spin::eval
