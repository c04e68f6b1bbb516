// Rewrites a pattern from Oniguruma's Ruby syntax, which Hugging Face `tokenizers` uses, to
// PCRE2's.
//
//   \s \S        White_Space (PCRE2's own \s adds U+180E)
//   \w \W        Oniguruma's word class; \W only outside [...]
//   \h \H        hexadecimal digits (PCRE2: horizontal space); only outside [...]
//   \v           U+000B (PCRE2: any vertical space)
//   \uHHHH       \x{HHHH}
//
// Escapes and groups that are not known to mean the same are refused by name: \b, \R, \X, back
// references, (?m), possessive {n}+, class intersection, nested and POSIX classes.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace spin {

absl::StatusOr<std::string> TranslateOnigurumaPattern(std::string_view pattern);

}  // namespace spin
