#include "models/tokenizer/oniguruma_pattern.h"

#include <array>

#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

bool IsHexDigit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool IsLetterOrDigit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    if (!IsValidUtf8(pattern_)) return InvalidArgument("the pattern is not UTF-8");
    while (at_ < pattern_.size()) {
      SPIN_RETURN_IF_ERROR(in_class_ ? ClassItem() : Item());
    }
    return std::move(out_);
  }

 private:
  // What Oniguruma's \w matches beside letters with the Alphabetic property, as ranges of a class.
  static constexpr std::string_view kWord =
      "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

  absl::Status Unsupported(std::string_view what) const {
    return InvalidArgument("the pattern \"%s\" uses %s at byte %d, which is not supported",
                           pattern_, what, at_);
  }
  bool LooksAt(std::string_view text) const { return pattern_.substr(at_, text.size()) == text; }
  void Copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }

  absl::Status Item() {
    switch (pattern_[at_]) {
      case '\\':
        return Escape();
      case '[':
        in_class_ = true;
        Copy(LooksAt("[^") ? 2 : 1);
        if (LooksAt("]")) return Unsupported("an empty class");
        return absl::OkStatus();
      case '(':
        return Group();
      case '}':
        if (LooksAt("}+")) return Unsupported("a repeat of a repeat ({n}+)");
        break;
      case '\0':  // PCRE2 would read a literal NUL, but say it visibly
        out_ += "\\x{0}";
        ++at_;
        return absl::OkStatus();
      default:
        break;
    }
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Group() {
    constexpr std::array<std::string_view, 8> kSame = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    for (const std::string_view opening : kSame) {
      if (!LooksAt(opening)) continue;
      Copy(opening.size());
      return absl::OkStatus();
    }
    if (LooksAt("(?") || LooksAt("(*"))
      return Unsupported("the group " + std::string(pattern_.substr(at_, 4)));
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status ClassItem() {
    switch (pattern_[at_]) {
      case '\\':
        return Escape();
      case ']':
        in_class_ = false;
        break;
      case '[':
        return Unsupported("a class inside a class");
      case '&':
        if (LooksAt("&&")) return Unsupported("class intersection (&&)");
        break;
      default:
        break;
    }
    Copy(1);
    return absl::OkStatus();
  }

  void Replace(std::size_t taken, std::string_view by) {
    out_ += by;
    at_ += taken;
  }
  // A class that PCRE2 spells with ranges: brackets are added outside [...].
  absl::Status ReplaceByClass(std::string_view ranges, bool negated) {
    if (in_class_ && negated) return Unsupported("a negated class escape inside [...]");
    out_ += in_class_ ? "" : (negated ? "[^" : "[");
    Replace(2, ranges);
    out_ += in_class_ ? "" : "]";
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (at_ + 1 == pattern_.size()) return Unsupported("a backslash at its end");
    const char c = pattern_[at_ + 1];
    if (static_cast<unsigned char>(c) < 0x80 && !IsLetterOrDigit(c)) {
      Copy(2);
      return absl::OkStatus();
    }
    switch (c) {
      case 's':
        Replace(2, "\\p{White_Space}");
        return absl::OkStatus();
      case 'S':
        Replace(2, "\\P{White_Space}");
        return absl::OkStatus();
      case 'w':
      case 'W':
        return ReplaceByClass(kWord, c == 'W');
      case 'h':
      case 'H':
        return ReplaceByClass("0-9a-fA-F", c == 'H');
      case 'v':
        Replace(2, "\\x{B}");
        return absl::OkStatus();
      case 'd':
      case 'D':
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        Copy(2);
        return absl::OkStatus();
      case 'p':
      case 'P':
        return Property();
      case 'x':
      case 'u':
        return CodePoint(c);
      default:
        return Unsupported("the escape \\" + std::string(1, c));
    }
  }

  // \p{Name}, \P{Name}, \p{^Name}: general categories and scripts have one meaning in both.
  absl::Status Property() {
    const std::size_t close = pattern_.find('}', at_);
    if (pattern_.substr(at_ + 2, 1) != "{" || close == std::string_view::npos) {
      return Unsupported("a property without braces");
    }
    Copy(close + 1 - at_);
    return absl::OkStatus();
  }

  // \xHH, \x{H...}, \uHHHH.
  absl::Status CodePoint(char kind) {
    std::size_t begin = at_ + 2;
    std::size_t end = begin;
    const bool braces = kind == 'x' && pattern_.substr(begin, 1) == "{";
    if (braces) end = ++begin;
    const std::size_t most = braces ? 8 : (kind == 'x' ? 2 : 4);
    while (end < pattern_.size() && end - begin < most && IsHexDigit(pattern_[end])) ++end;
    const std::size_t digits = end - begin;
    if (digits == 0 || (kind == 'u' && digits != 4) || (braces && pattern_.substr(end, 1) != "}")) {
      return Unsupported("a malformed code point");
    }
    // Oniguruma reads \x80 and above as raw bytes.
    if (kind == 'x' && !braces && pattern_[begin] >= '8' && digits == 2)
      return Unsupported("a raw byte");
    out_ += "\\x{" + std::string(pattern_.substr(begin, digits)) + "}";
    at_ = end + (braces ? 1 : 0);
    return absl::OkStatus();
  }

  std::string_view pattern_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

absl::StatusOr<std::string> TranslateOnigurumaPattern(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace spin
