// The normaliser of a tokenizer.json: none, or Unicode's NFC.
//
// Immutable; any thread. Linear in the text, also for long runs of combining marks. Unicode 15
// (utf8proc 2.8).
#pragma once

#include <string>
#include <string_view>

namespace spin {

class Normalizer {
 public:
  enum class Kind { kNone, kNfc };

  explicit Normalizer(Kind kind = Kind::kNone) : kind_(kind) {}

  // `text` (valid UTF-8) normalised: `text` itself when nothing changes, else a view of `*storage`.
  std::string_view Normalize(std::string_view text, std::string* storage) const;

  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

}  // namespace spin
