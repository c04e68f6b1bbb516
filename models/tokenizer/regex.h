// A regular expression of a tokenizer.json, compiled once with PCRE2 (UTF, Unicode properties,
// just-in-time code).
//
// Hugging Face runs these patterns on Oniguruma; the same text means other things to PCRE2 in
// places (\s, \w, \h). Compile takes Oniguruma's (Ruby) syntax, rewrites what differs and refuses
// what it cannot promise to match equally.
//
// A Regex is immutable: any thread may match with it, each with its own Matcher.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace spin {

class Regex {
 public:
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // Matches exactly `text`.
  static absl::StatusOr<Regex> Literal(std::string_view text);

  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  // The memory of a search. One thread; the Regex outlives it.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    // The leftmost match in valid UTF-8 `subject` that begins at or after `from`. Nothing, too,
    // when the search takes more than a fixed number of steps, so that no pattern and text can hang
    // the caller.
    std::optional<Match> Find(std::string_view subject, std::size_t from);

   private:
    struct Deleter {
      void operator()(pcre2_real_match_data_8* data) const;
      void operator()(pcre2_real_match_context_8* context) const;
    };
    const Regex* regex_;
    std::unique_ptr<pcre2_real_match_data_8, Deleter> data_;
    std::unique_ptr<pcre2_real_match_context_8, Deleter> context_;
  };

 private:
  struct Deleter {
    void operator()(pcre2_real_code_8* code) const;
  };
  static absl::StatusOr<Regex> CompilePcre2(const std::string& pattern, std::string_view source);

  std::unique_ptr<pcre2_real_code_8, Deleter> code_;
  bool jit_ = false;
};

}  // namespace spin
