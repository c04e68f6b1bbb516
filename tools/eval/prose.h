// Text to fill a context with: a file's, or prose that is made up from a grammar, so that nothing need be downloaded.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spin::eval {

// `num_sentences` sentences in paragraphs of four to seven, English, grammatical, about nothing; a function of the
// seed. The first sentences of a longer text are those of a shorter one.
std::vector<std::string> MakeProse(uint64_t seed, int32_t num_sentences);

// The sentences of a text: split behind . ! ? and at empty lines; runs of white space become one space.
std::vector<std::string> SplitSentences(std::string_view text);

// Sentences one after another with a space between, unless one begins a paragraph.
std::string JoinSentences(const std::vector<std::string>& sentences);

}  // namespace spin::eval
