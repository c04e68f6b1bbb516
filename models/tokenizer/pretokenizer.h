// Cuts a text into the words that BPE may not merge across: the pre-tokenizer of a tokenizer.json.
//
// A Pretokenizer is a list of steps; each cuts the pieces of the one before. Built once, then
// immutable: any thread may call Split, each with its own Scratch.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "models/tokenizer/regex.h"

namespace spin {

class Pretokenizer {
 public:
  // What becomes of the stretches that a pattern matches.
  enum class Behavior {
    kIsolated,            // "a-b" by "-": a, -, b
    kRemoved,             // a, b
    kMergedWithPrevious,  // a-, b
    kMergedWithNext,      // a, -b
    kContiguous,          // as isolated, but neighbouring matches are one piece
  };

  // `invert`: the stretches between matches are the matches.
  void AddSplit(Regex pattern, Behavior behavior, bool invert);
  void AddDigits(bool individual_digits);
  // The ByteLevel step: a space before each piece that has none, and GPT-2's own pattern, both on
  // request.
  absl::Status AddByteLevel(bool add_prefix_space, bool use_regex);

  // Some step leaves out what its pattern matches.
  bool removes_text() const;

  // The memory of Split. One thread; the Pretokenizer outlives it.
  class Scratch {
   public:
    explicit Scratch(const Pretokenizer& pretokenizer);

   private:
    friend class Pretokenizer;
    struct Stretch {
      std::size_t begin;
      std::size_t end;
      bool is_match;
    };
    std::vector<std::optional<Regex::Matcher>> matchers_;  // [step]
    std::vector<std::string_view> pieces_;
    std::vector<Stretch> stretches_;
    std::string known_;                 // the text as an older Unicode may see it
    std::deque<std::string> prefixed_;  // pieces that got a space
  };

  // Replaces `*words` by the words of `text` (valid UTF-8), none empty. They point into `text` or
  // `*scratch`, until the next call.
  void Split(std::string_view text, Scratch* scratch, std::vector<std::string_view>* words) const;

 private:
  struct Step {
    enum class Kind { kPattern, kDigits, kPrefixSpace };
    Kind kind;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    std::unique_ptr<const Regex> pattern;  // kPattern; its address is stable for matchers
  };

  void FindPattern(const Step& step, Regex::Matcher* matcher, std::string_view piece,
                   Scratch* scratch) const;

  std::vector<Step> steps_;
};

}  // namespace spin
