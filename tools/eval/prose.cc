#include "tools/eval/prose.h"

#include <array>
#include <cctype>

#include "common/random.h"
#include "tools/eval/words.h"

namespace spin::eval {
namespace {

// N noun, A adjective, V verb, P place, C name, Q number from 2 to 90, D day.
constexpr std::string_view kTemplates[] = {
    "%C %V the %A %N before the rain reached %P.",
    "Nobody in %P remembered who had %V the %N, and %C did not ask.",
    "On %D the %A %N near %P was gone, but a %N lay in its place.",
    "It took %Q days to bring the %N from %P, mostly because the %N was %A.",
    "\"I never %V a %A %N,\" said %C, and went back to the %N.",
    "The %N that %C had %V stood between a %A %N and a %N.",
    "There were %Q people at %P that %D, and each of them %V something %A.",
    "When the %N broke, %C %V another one and said nothing about the price.",
    "A %A %N is worth more than %Q %A ones, as they say at %P.",
    "%C and %C met at %P, where the %N was %A and the evening long.",
    "If the %N is %A, look behind the %N first; if it is not, ask at %P.",
    "They %V the %N twice: once on %D, and once more when %C arrived.",
    "The letter mentioned a %N, %Q coins, and a road that leads past %P.",
    "Because the %A %N was heavy, %C left it at %P and walked.",
    "Some said %C had %V it; others blamed the %A weather of that %D.",
    "What the %N cost was a matter between %C and %C alone.",
    "By the time the bell rang, the %N had been %A for %Q minutes.",
    "Few visitors notice the %A %N above the door of %P.",
    "She %V the %N carefully, since the last %N had been %A as well.",
    "In the end the %N was %A enough, and %P could be opened on %D.",
    "Old %C still kept the %N that someone %V in %P long ago.",
    "Neither the %N nor the %N was for sale, which %C found %A.",
    "Past %P the path turns, and a %A %N marks the way to the %N.",
    "He counted %Q steps from the %N to the %N and wrote the number down.",
    "A rumor about a %A %N went around %P, until %C %V the proof."};

constexpr std::string_view kDays[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                      "Friday", "Saturday", "Sunday"};

std::string Expand(std::string_view pattern, Random& random) {
  std::string text;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') {
      text += pattern[i];
      continue;
    }
    switch (pattern[++i]) {
      case 'N':
        text += Pick(Nouns(), random);
        break;
      case 'A':
        text += Pick(Adjectives(), random);
        break;
      case 'V':
        text += Pick(Verbs(), random);
        break;
      case 'P':
        text += Pick(Places(), random);
        break;
      case 'C':
        text += Pick(Names(), random);
        break;
      case 'D':
        text += Pick(kDays, random);
        break;
      default:
        text += std::to_string(2 + random.Below(89));
    }
  }
  return text;
}

bool IsSpace(char c) {
  return std::isspace(static_cast<unsigned char>(c)) != 0;
}

}  // namespace

std::vector<std::string> MakeProse(uint64_t seed, int32_t num_sentences) {
  Random random(seed);
  std::vector<std::string> sentences;
  sentences.reserve(static_cast<size_t>(num_sentences));
  for (uint32_t left = 0; static_cast<int32_t>(sentences.size()) < num_sentences; --left) {
    const bool begins = left == 0;
    if (begins) left = 4 + random.Below(4);
    const std::string sentence = Expand(Pick(kTemplates, random), random);
    sentences.push_back(begins && !sentences.empty() ? "\n\n" + sentence : sentence);
  }
  return sentences;
}

std::vector<std::string> SplitSentences(std::string_view text) {
  std::vector<std::string> sentences;
  std::string current;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool empty_line = text[i] == '\n' && i + 1 < text.size() && text[i + 1] == '\n';
    if (!IsSpace(text[i])) {
      if (i > 0 && IsSpace(text[i - 1]) && !current.empty()) current += ' ';
      current += text[i];
    }
    const bool stop = (text[i] == '.' || text[i] == '!' || text[i] == '?') &&
                      (i + 1 == text.size() || IsSpace(text[i + 1]));
    if (!(stop || empty_line) || current.empty()) continue;
    sentences.push_back(std::move(current));
    current.clear();
  }
  if (!current.empty()) sentences.push_back(std::move(current));
  return sentences;
}

std::string JoinSentences(const std::vector<std::string>& sentences) {
  std::string text;
  for (const std::string& sentence : sentences) {
    if (!text.empty() && !sentence.starts_with('\n')) text += ' ';
    text += sentence;
  }
  return text;
}

}  // namespace spin::eval
