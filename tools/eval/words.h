// English words for keys, lists and prose: concrete, lower case, no two alike.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/random.h"

namespace spin::eval {

std::span<const std::string_view> Nouns();
std::span<const std::string_view> Adjectives();
std::span<const std::string_view> Verbs();  // past tense, with an object
std::span<const std::string_view> Places();
std::span<const std::string_view> Names();

inline std::string_view Pick(std::span<const std::string_view> words, Random& random) {
  return words[random.Below(static_cast<uint32_t>(words.size()))];
}

// Word number `i` of an endless list of distinct words: the nouns, adjectives and verbs, then pairs "amber-anchor".
std::string DistinctWord(uint32_t i);

}  // namespace spin::eval
