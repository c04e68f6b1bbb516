#include "models/tokenizer/pretokenizer.h"

#include <algorithm>
#include <utility>

#include "models/tokenizer/characters.h"
#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Neighbours become one stretch where `joins(left, right)` says so.
template <typename Stretches, typename Joins>
void Fold(Stretches* stretches, Joins joins) {
  std::size_t kept = 0;
  bool previous_is_match = false;
  for (std::size_t i = 0; i < stretches->size(); ++i) {
    const auto stretch = (*stretches)[i];
    if (kept > 0 && joins(previous_is_match, stretch.is_match)) {
      (*stretches)[kept - 1].end = stretch.end;
    } else {
      (*stretches)[kept++] = stretch;
    }
    previous_is_match = stretch.is_match;
  }
  stretches->resize(kept);
}

// Turns stretches into the pieces that `behavior` asks for (their is_match means nothing
// afterwards).
template <typename Stretches>
void Apply(Pretokenizer::Behavior behavior, Stretches* stretches) {
  switch (behavior) {
    case Pretokenizer::Behavior::kIsolated:
      break;
    case Pretokenizer::Behavior::kRemoved:
      std::erase_if(*stretches, [](const auto& stretch) { return stretch.is_match; });
      break;
    case Pretokenizer::Behavior::kContiguous:
      Fold(stretches, [](bool left, bool right) { return left == right; });
      break;
    case Pretokenizer::Behavior::kMergedWithPrevious:
      Fold(stretches, [](bool left, bool right) { return right && !left; });
      break;
    case Pretokenizer::Behavior::kMergedWithNext: {
      // Seen from the end: a match joins what follows it unless that is a match too.
      std::reverse(stretches->begin(), stretches->end());
      for (auto& stretch : *stretches) std::swap(stretch.begin, stretch.end);
      Fold(stretches, [](bool left, bool right) { return right && !left; });
      for (auto& stretch : *stretches) std::swap(stretch.begin, stretch.end);
      std::reverse(stretches->begin(), stretches->end());
      break;
    }
  }
}

template <typename Stretches>
void FindDigits(std::string_view piece, Stretches* stretches) {
  std::size_t done = 0;
  for (std::size_t at = 0; at < piece.size();) {
    const Utf8Char c = DecodeUtf8(piece, at);
    const std::size_t next = at + c.length;
    if (IsNumeric(c.code_point)) {
      if (done < at) stretches->push_back({done, at, false});
      stretches->push_back({at, next, true});
      done = next;
    }
    at = next;
  }
  if (done < piece.size()) stretches->push_back({done, piece.size(), false});
}

}  // namespace

void Pretokenizer::AddSplit(Regex pattern, Behavior behavior, bool invert) {
  steps_.push_back({.kind = Step::Kind::kPattern,
                    .behavior = behavior,
                    .invert = invert,
                    .pattern = std::make_unique<const Regex>(std::move(pattern))});
}

void Pretokenizer::AddDigits(bool individual_digits) {
  const Behavior behavior = individual_digits ? Behavior::kIsolated : Behavior::kContiguous;
  steps_.push_back({.kind = Step::Kind::kDigits, .behavior = behavior, .pattern = nullptr});
}

absl::Status Pretokenizer::AddByteLevel(bool add_prefix_space, bool use_regex) {
  if (add_prefix_space) steps_.push_back({.kind = Step::Kind::kPrefixSpace, .pattern = nullptr});
  if (use_regex) {
    SPIN_ASSIGN_OR_RETURN(Regex pattern, Regex::Compile(kGpt2Pattern));
    AddSplit(std::move(pattern), Behavior::kIsolated, false);
  }
  return absl::OkStatus();
}

bool Pretokenizer::removes_text() const {
  return std::ranges::any_of(steps_,
                             [](const Step& step) { return step.behavior == Behavior::kRemoved; });
}

Pretokenizer::Scratch::Scratch(const Pretokenizer& pretokenizer) {
  for (const Step& step : pretokenizer.steps_) {
    matchers_.emplace_back();
    if (step.pattern != nullptr) matchers_.back().emplace(*step.pattern);
  }
}

void Pretokenizer::Split(std::string_view text, Scratch* scratch,
                         std::vector<std::string_view>* words) const {
  words->clear();
  scratch->prefixed_.clear();
  if (!text.empty()) words->push_back(text);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    std::swap(*words, scratch->pieces_);
    words->clear();
    for (const std::string_view piece : scratch->pieces_) {
      if (step.kind == Step::Kind::kPrefixSpace) {
        words->push_back(
            piece[0] == ' ' ? piece : scratch->prefixed_.emplace_back(" " + std::string(piece)));
        continue;
      }
      auto& stretches = scratch->stretches_;
      stretches.clear();
      if (step.kind == Step::Kind::kDigits) {
        FindDigits(piece, &stretches);
      } else {
        FindPattern(step, &*scratch->matchers_[i], piece, scratch);
      }
      Apply(step.behavior, &stretches);
      for (const auto& stretch : stretches) {
        if (stretch.begin < stretch.end)
          words->push_back(piece.substr(stretch.begin, stretch.end - stretch.begin));
      }
    }
  }
}

void Pretokenizer::FindPattern(const Step& step, Regex::Matcher* matcher, std::string_view piece,
                               Scratch* scratch) const {
  const std::string_view subject = WithKnownCharacters(piece, &scratch->known_);
  auto& stretches = scratch->stretches_;
  std::size_t done = 0;  // where the last accepted match ended
  std::size_t from = 0;
  bool matched = false;
  while (from <= subject.size()) {
    const std::optional<Regex::Match> match = matcher->Find(subject, from);
    if (!match.has_value()) break;
    if (match->begin == match->end && matched && match->end == done) {
      // An empty match right behind the last one does not count; look on from the next character.
      if (from >= subject.size()) break;
      from += DecodeUtf8(subject, from).length;
      continue;
    }
    if (done < match->begin) stretches.push_back({done, match->begin, step.invert});
    stretches.push_back({match->begin, match->end, !step.invert});
    from = done = match->end;
    matched = true;
  }
  if (done < subject.size()) stretches.push_back({done, subject.size(), step.invert});
}

}  // namespace spin
