// Template text to tokens, with Jinja's white space control (trim_blocks and lstrip_blocks on, as
// transformers sets them).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace spin::jinja {

enum class TokenType {
  kEnd,
  kData,           // text between tags
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
};

struct Token {
  TokenType type = TokenType::kEnd;
  std::string
      text;  // data, a name, an operator; of a string its value; of a number its digits without '_'
  int line = 1;
};

// All tokens; the last is kEnd. Comments are gone, raw blocks are data.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// The token as an error names it.
std::string Describe(const Token& token);

}  // namespace spin::jinja
