// The parser's position in the tokens of a template.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "models/jinja/lexer.h"

namespace spin::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }

  // Moves on; stays at the end.
  Token Take() {
    const Token token = current();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }

  bool Is(TokenType type) const { return current().type == type; }
  bool IsName(std::string_view name) const {
    return Is(TokenType::kName) && current().text == name;
  }
  bool IsOperator(std::string_view op) const {
    return Is(TokenType::kOperator) && current().text == op;
  }

  bool SkipName(std::string_view name) { return IsName(name) && (Take(), true); }
  bool SkipOperator(std::string_view op) { return IsOperator(op) && (Take(), true); }

  absl::Status ExpectOperator(std::string_view op) {
    if (SkipOperator(op)) return absl::OkStatus();
    return Fail(absl::StrFormat("expected '%s', found %s", op, Describe(current())));
  }
  absl::Status Expect(TokenType type, std::string_view what) {
    if (!Is(type)) return Fail(absl::StrFormat("expected %s, found %s", what, Describe(current())));
    Take();
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> ExpectName(std::string_view what) {
    if (!Is(TokenType::kName)) {
      return Fail(absl::StrFormat("expected %s, found %s", what, Describe(current())));
    }
    return Take().text;
  }

  absl::Status Fail(std::string_view what) const { return FailAt(line(), what); }
  static absl::Status FailAt(int line, std::string_view what) {
    return InvalidArgument("line %d: %s", line, what);
  }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace spin::jinja
