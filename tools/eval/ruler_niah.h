// RULER's needle-in-a-haystack tasks (arXiv 2404.06654, section 3.1 and appendix B): sentences that give a key a value,
// hidden in filler, and a question for the values of some keys.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tools/eval/text_task.h"

namespace spin::eval {

enum class Haystack {
  kNoise,    // five short sentences, over and over
  kText,     // prose: RULER's essays
  kNeedles,  // needles of other keys, and nothing else
};
enum class Token {
  kWords,
  kNumber,
  kUuid
};  // of keys and values: "amber-anchor", seven digits, a UUID

struct NiahConfig {
  std::string name;
  Haystack haystack = Haystack::kNoise;
  Token key = Token::kWords;
  Token value = Token::kNumber;
  int32_t num_keys = 1;     // hidden
  int32_t num_values = 1;   // a key
  int32_t num_queries = 1;  // keys asked for, at most num_keys
};

// niah_single_1..3, niah_multikey_1..3, niah_multivalue, niah_multiquery, as RULER configures them.
std::vector<NiahConfig> NiahConfigs();

// `text`: the sentences of Haystack::kText, repeated where they are too few. Not empty.
std::unique_ptr<TextTask> MakeNiah(const NiahConfig& config,
                                   std::shared_ptr<const std::vector<std::string>> text);

}  // namespace spin::eval
