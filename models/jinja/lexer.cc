#include "models/jinja/lexer.h"

#include <algorithm>
#include <cctype>

#include "models/jinja/limits.h"
#include "models/jinja/string_literal.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

// CR LF and CR become LF; one line break at the very end is dropped, as Jinja does.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool IsNameStart(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool IsDecimal(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) SPIN_RETURN_IF_ERROR(Text());
    Emit(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  bool StartsWith(std::string_view text) const { return rest().substr(0, text.size()) == text; }

  void Emit(TokenType type, std::string text) { tokens_.push_back({type, std::move(text), line_}); }

  // Moves to `to`, counting lines.
  void Advance(size_t to) {
    for (; at_ < to; ++at_) line_ += source_[at_] == '\n' ? 1 : 0;
  }

  void SkipSpace() {
    while (at_ < source_.size() && IsSpace(CodePoint(rest())))
      Advance(at_ + CharacterBytes(rest()));
  }

  absl::Status Fail(std::string_view what) const {
    return InvalidArgument("line %d: %s", line_, what);
  }

  // Data up to `end`, where a tag starts whose sign is `sign` ('-' strips, '+' keeps); then moves
  // to `end`.
  void Data(size_t end, char sign, bool is_variable) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    const bool line_starting = at_ == 0 || source_[at_ - 1] == '\n';
    if (sign == '-') {
      text = StripSpace(text, Side::kRight);
    } else if (sign != '+' && !is_variable) {
      const size_t line_start = text.rfind('\n') + 1;  // 0 when there is no line break
      const bool at_line_start = line_start > 0 || line_starting;
      if (at_line_start && StripSpace(text.substr(line_start), Side::kLeft).empty()) {
        text = text.substr(0, line_start);
      }
    }
    if (!text.empty()) Emit(TokenType::kData, std::string(text));
    Advance(end);
  }

  // The sign behind the two characters of a tag's start.
  char SignAt(size_t tag) const {
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    return sign == '-' || sign == '+' ? sign : '\0';
  }

  // Data, then the tag that ends it.
  absl::Status Text() {
    size_t tag = source_.find('{', at_);
    while (tag != std::string::npos &&
           (tag + 1 >= source_.size() ||
            (source_[tag + 1] != '%' && source_[tag + 1] != '{' && source_[tag + 1] != '#'))) {
      tag = source_.find('{', tag + 1);
    }
    if (tag == std::string::npos) {
      Emit(TokenType::kData, std::string(rest()));
      Advance(source_.size());
      return absl::OkStatus();
    }
    const char kind = source_[tag + 1];
    const char sign = SignAt(tag);
    Data(tag, sign, kind == '{');
    const size_t inside = at_ + (sign == '\0' ? 2 : 3);
    if (kind == '#') return Comment(inside);
    if (kind == '%') {
      size_t raw_end = 0;
      if (IsTag(inside, "raw", /*plus_ends=*/false, &raw_end)) return Raw(raw_end);
    }
    Emit(kind == '%' ? TokenType::kBlockBegin : TokenType::kVariableBegin, "");
    Advance(inside);
    return Tag(kind == '%');
  }

  absl::Status Comment(size_t inside) {
    const size_t close = source_.find("#}", inside);
    if (close == std::string::npos) return Fail("a comment is never closed by '#}'");
    const char sign = close > inside ? source_[close - 1] : '\0';
    Advance(close + 2);
    FinishTag(sign);
    return absl::OkStatus();
  }

  // After the end of a block or comment: '-' strips what follows, '+' keeps it, else one line break
  // goes.
  void FinishTag(char sign) {
    if (sign == '-') {
      SkipSpace();
    } else if (sign != '+' && Peek() == '\n') {
      Advance(at_ + 1);
    }
  }

  // Whether the block whose inside starts at `inside` is just `name`; `end` is then behind its
  // "%}", white space that a
  // '-' strips and a line break that trim_blocks takes included where they apply (only `endraw`
  // trims).
  bool IsTag(size_t inside, std::string_view name, bool plus_ends, size_t* end) const {
    std::string_view text = std::string_view(source_).substr(inside);
    text = StripSpace(text, Side::kLeft);
    if (text.substr(0, name.size()) != name) return false;
    text = StripSpace(text.substr(name.size()), Side::kLeft);
    char sign = '\0';
    if (!text.empty() && (text[0] == '-' || (plus_ends && text[0] == '+'))) {
      sign = text[0];
      text.remove_prefix(1);
    }
    if (text.substr(0, 2) != "%}") return false;
    text.remove_prefix(2);
    if (sign == '-') {
      text = StripSpace(text, Side::kLeft);
    } else if (plus_ends && sign == '\0' && !text.empty() && text[0] == '\n') {
      text.remove_prefix(1);
    }
    *end = source_.size() - text.size();
    return true;
  }

  absl::Status Raw(size_t inside) {
    Advance(inside);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos;
         tag = source_.find("{%", tag + 2)) {
      const char sign = SignAt(tag);
      size_t end = 0;
      if (!IsTag(tag + (sign == '\0' ? 2 : 3), "endraw", /*plus_ends=*/true, &end)) continue;
      Data(tag, sign, /*is_variable=*/false);
      Advance(end);
      return absl::OkStatus();
    }
    return Fail("a raw block is never closed by '{% endraw %}'");
  }

  // Tokens of one {% %} or {{ }}.
  absl::Status Tag(bool is_block) {
    std::string open;  // brackets not closed yet
    while (at_ < source_.size()) {
      if (open.empty() && End(is_block)) return absl::OkStatus();
      const char c = Peek();
      if (IsSpace(CodePoint(rest()))) {
        SkipSpace();
      } else if (IsDecimal(c)) {
        Number();
      } else if (IsNameStart(c)) {
        size_t end = at_;
        while (end < source_.size() && (IsNameStart(source_[end]) || IsDecimal(source_[end])))
          ++end;
        Emit(TokenType::kName, source_.substr(at_, end - at_));
        Advance(end);
      } else if (c == '\'' || c == '"') {
        SPIN_RETURN_IF_ERROR(String(c));
      } else {
        SPIN_RETURN_IF_ERROR(Operator(&open));
      }
    }
    return Fail(is_block ? "a block is never closed by '%}'"
                         : "an expression is never closed by '}}'");
  }

  // Takes the end of the tag when it is here.
  bool End(bool is_block) {
    const std::string_view close = is_block ? "%}" : "}}";
    const char c = Peek();
    const char sign = c == '-' || (c == '+' && is_block) ? c : '\0';
    const size_t skip = sign == '\0' ? 0 : 1;
    if (rest().substr(std::min(skip, rest().size()), 2) != close) return false;
    Emit(is_block ? TokenType::kBlockEnd : TokenType::kVariableEnd, std::string(close));
    Advance(at_ + skip + 2);
    if (is_block || sign == '-') FinishTag(sign);
    return true;
  }

  // Digits with single '_' between them, from `from`; the position behind them.
  size_t Digits(size_t from, bool hex = false) const {
    const auto is_digit = [hex](char c) {
      return hex ? std::isxdigit(static_cast<unsigned char>(c)) != 0 : IsDecimal(c);
    };
    size_t end = from;
    while (end < source_.size() &&
           (is_digit(source_[end]) || (source_[end] == '_' && end > from &&
                                       end + 1 < source_.size() && is_digit(source_[end + 1])))) {
      ++end;
    }
    return end;
  }

  void Number() {
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    const char base = static_cast<char>(std::tolower(Peek(1)));
    size_t end = Digits(at_);
    TokenType type = TokenType::kInteger;
    if (Peek() == '0' && (base == 'x' || base == 'o' || base == 'b') &&
        Digits(at_ + 2, true) > at_ + 2) {
      end = Digits(at_ + 2, base == 'x');
    } else if (!after_dot) {
      if (end < source_.size() && source_[end] == '.' && Digits(end + 1) > end + 1) {
        end = Digits(end + 1);
        type = TokenType::kFloat;
      }
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-'))
        ++exponent;
      if (end < source_.size() && std::tolower(source_[end]) == 'e' &&
          Digits(exponent) > exponent) {
        end = Digits(exponent);
        type = TokenType::kFloat;
      }
    }
    std::string digits;
    for (size_t i = at_; i < end; ++i) {
      if (source_[i] != '_') digits.push_back(source_[i]);
    }
    Emit(type, std::move(digits));
    Advance(end);
  }

  absl::Status String(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Fail("a string is never closed");
    auto value = UnescapeString(std::string_view(source_).substr(at_ + 1, end - at_ - 1));
    if (!value.ok()) return Fail(MessageOf(value.status()));
    Emit(TokenType::kString, *std::move(value));
    Advance(end + 1);
    return absl::OkStatus();
  }

  absl::Status Operator(std::string* open) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!StartsWith(op)) continue;
      if (op == "(" || op == "[" || op == "{") {
        open->push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
      } else if (op == ")" || op == "]" || op == "}") {
        if (open->empty() || open->back() != op[0])
          return Fail(absl::StrFormat("unexpected '%s'", op));
        open->pop_back();
      }
      Emit(TokenType::kOperator, std::string(op));
      Advance(at_ + op.size());
      return absl::OkStatus();
    }
    return Fail(
        absl::StrFormat("unexpected character '%s'", rest().substr(0, CharacterBytes(rest()))));
  }

  const std::string source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return InvalidArgument("the template has %d bytes; at most %d are read", source.size(),
                           kMaxSourceBytes);
  }
  return Lexer(NormalizeNewlines(source)).Run();
}

std::string Describe(const Token& token) {
  switch (token.type) {
    case TokenType::kEnd:
      return "the end of the template";
    case TokenType::kData:
      return "text";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kBlockEnd:
      return "'%}'";
    case TokenType::kVariableBegin:
      return "'{{'";
    case TokenType::kVariableEnd:
      return "'}}'";
    case TokenType::kString:
      return "a string";
    default:
      return absl::StrFormat("'%s'", token.text);
  }
}

}  // namespace spin::jinja
