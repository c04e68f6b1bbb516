#include "models/jinja/expression_parser.h"

#include <absl/cleanup/cleanup.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "models/jinja/limits.h"

namespace spin::jinja {

using Result = ExpressionParser::Result;

ExpressionPtr ExpressionParser::New(ExpressionKind kind, int line) {
  auto node = std::make_unique<jinja::Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

Result ExpressionParser::Finish(ExpressionPtr node) {
  for (const ExpressionPtr& operand : node->operands) {
    if (operand != nullptr) node->depth = std::max(node->depth, operand->depth + 1);
  }
  for (const auto& [name, value] : node->keywords) {
    node->depth = std::max(node->depth, value->depth + 1);
  }
  if (node->depth > kMaxSyntaxDepth) {
    return TokenStream::FailAt(
        node->line,
        absl::StrFormat("an expression is nested more than %d levels deep", kMaxSyntaxDepth));
  }
  return node;
}

Result ExpressionParser::Binary(ExpressionKind kind, std::string op, int line, ExpressionPtr left,
                                ExpressionPtr right) {
  ExpressionPtr node = New(kind, line);
  node->name = std::move(op);
  node->operands.push_back(std::move(left));
  node->operands.push_back(std::move(right));
  return Finish(std::move(node));
}

Result ExpressionParser::Expression(bool with_conditional) {
  return with_conditional ? Conditional() : Or();
}

Result ExpressionParser::Conditional() {
  const int line = tokens_.line();
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr node, Or());
  while (tokens_.SkipName("if")) {
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr condition, Or());
    ExpressionPtr otherwise;
    if (tokens_.SkipName("else")) {
      // The else part may be a conditional again, to any length.
      if (++nesting_ > kMaxSyntaxDepth) return tokens_.Fail("an expression is nested too deeply");
      const auto leave = absl::MakeCleanup([this] { --nesting_; });
      SPIN_ASSIGN_OR_RETURN(otherwise, Conditional());
    }
    SPIN_ASSIGN_OR_RETURN(node, Binary(ExpressionKind::kConditional, "", line, std::move(condition),
                                       std::move(node)));
    node->operands.push_back(std::move(otherwise));
    SPIN_ASSIGN_OR_RETURN(node, Finish(std::move(node)));
  }
  return node;
}

Result ExpressionParser::Or() {
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr left, And());
  while (tokens_.IsName("or")) {
    const int line = tokens_.Take().line;
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr right, And());
    SPIN_ASSIGN_OR_RETURN(
        left, Binary(ExpressionKind::kOr, "or", line, std::move(left), std::move(right)));
  }
  return left;
}

Result ExpressionParser::And() {
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr left, Not());
  while (tokens_.IsName("and")) {
    const int line = tokens_.Take().line;
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr right, Not());
    SPIN_ASSIGN_OR_RETURN(
        left, Binary(ExpressionKind::kAnd, "and", line, std::move(left), std::move(right)));
  }
  return left;
}

Result ExpressionParser::Not() {
  int count = 0;
  const int line = tokens_.line();
  while (tokens_.SkipName("not")) ++count;
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr node, Comparison());
  for (; count > 0; --count) {
    ExpressionPtr negated = New(ExpressionKind::kNot, line);
    negated->operands.push_back(std::move(node));
    SPIN_ASSIGN_OR_RETURN(node, Finish(std::move(negated)));
  }
  return node;
}

Result ExpressionParser::Comparison() {
  static constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  const int line = tokens_.line();
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr first, Sum());
  ExpressionPtr node;
  while (true) {
    std::string op;
    for (const std::string_view candidate : kOperators) {
      if (tokens_.IsOperator(candidate)) op = std::string(candidate);
    }
    const bool not_in = tokens_.IsName("not") && tokens_.next().type == TokenType::kName &&
                        tokens_.next().text == "in";
    if (not_in) {
      tokens_.Take();
      op = "notin";
    } else if (tokens_.IsName("in")) {
      op = "in";
    }
    if (op.empty()) break;
    tokens_.Take();
    if (node == nullptr) {
      node = New(ExpressionKind::kComparison, line);
      node->operands.push_back(std::move(first));
    }
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr operand, Sum());
    node->names.push_back(std::move(op));
    node->operands.push_back(std::move(operand));
  }
  return node == nullptr ? Result(std::move(first)) : Finish(std::move(node));
}

Result ExpressionParser::Sum() {
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr left, Concat());
  while (tokens_.IsOperator("+") || tokens_.IsOperator("-")) {
    const Token op = tokens_.Take();
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr right, Concat());
    SPIN_ASSIGN_OR_RETURN(left, Binary(ExpressionKind::kArithmetic, op.text, op.line,
                                       std::move(left), std::move(right)));
  }
  return left;
}

Result ExpressionParser::Concat() {
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr first, Product());
  if (!tokens_.IsOperator("~")) return first;
  ExpressionPtr node = New(ExpressionKind::kConcat, tokens_.line());
  node->operands.push_back(std::move(first));
  while (tokens_.SkipOperator("~")) {
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr operand, Product());
    node->operands.push_back(std::move(operand));
  }
  return Finish(std::move(node));
}

Result ExpressionParser::Product() {
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr left, Power());
  while (tokens_.IsOperator("*") || tokens_.IsOperator("/") || tokens_.IsOperator("//") ||
         tokens_.IsOperator("%")) {
    const Token op = tokens_.Take();
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr right, Power());
    SPIN_ASSIGN_OR_RETURN(left, Binary(ExpressionKind::kArithmetic, op.text, op.line,
                                       std::move(left), std::move(right)));
  }
  return left;
}

// Jinja's power associates to the left, unlike Python's.
Result ExpressionParser::Power() {
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr left, Unary(/*with_filters=*/true));
  while (tokens_.IsOperator("**")) {
    const Token op = tokens_.Take();
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr right, Unary(/*with_filters=*/true));
    SPIN_ASSIGN_OR_RETURN(left, Binary(ExpressionKind::kArithmetic, op.text, op.line,
                                       std::move(left), std::move(right)));
  }
  return left;
}

Result ExpressionParser::Unary(bool with_filters) {
  if (++nesting_ > kMaxSyntaxDepth) return tokens_.Fail("an expression is nested too deeply");
  const auto leave = absl::MakeCleanup([this] { --nesting_; });
  ExpressionPtr node;
  if (tokens_.IsOperator("-") || tokens_.IsOperator("+")) {
    const Token op = tokens_.Take();
    node = New(op.text == "-" ? ExpressionKind::kNegative : ExpressionKind::kPositive, op.line);
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr operand, Unary(/*with_filters=*/false));
    node->operands.push_back(std::move(operand));
    SPIN_ASSIGN_OR_RETURN(node, Finish(std::move(node)));
  } else {
    SPIN_ASSIGN_OR_RETURN(node, Primary());
  }
  SPIN_ASSIGN_OR_RETURN(node, Postfix(std::move(node)));
  if (with_filters) return FiltersAndTests(std::move(node));
  return node;
}

Result ExpressionParser::Primary() {
  const Token& token = tokens_.current();
  switch (token.type) {
    case TokenType::kName:
      return NameOrConstant();
    case TokenType::kString: {
      ExpressionPtr node = New(ExpressionKind::kConstant, token.line);
      std::string text;  // adjacent strings are one
      while (tokens_.Is(TokenType::kString)) text += tokens_.Take().text;
      node->value = Value::String(std::move(text));
      return node;
    }
    case TokenType::kInteger:
    case TokenType::kFloat:
      return Number();
    default:
      break;
  }
  if (tokens_.IsOperator("[")) return ListLiteral();
  if (tokens_.IsOperator("{")) return DictLiteral();
  if (!tokens_.IsOperator("(")) {
    return tokens_.Fail(absl::StrFormat("expected an expression, found %s", Describe(token)));
  }
  const int line = tokens_.Take().line;
  if (tokens_.SkipOperator(")")) return New(ExpressionKind::kTuple, line);
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr node, Tuple());
  SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return node;
}

Result ExpressionParser::NameOrConstant() {
  const Token token = tokens_.Take();
  ExpressionPtr node = New(ExpressionKind::kConstant, token.line);
  if (token.text == "true" || token.text == "True") {
    node->value = Value::Bool(true);
  } else if (token.text == "false" || token.text == "False") {
    node->value = Value::Bool(false);
  } else if (token.text == "none" || token.text == "None") {
    node->value = Value::None();
  } else {
    node->kind = ExpressionKind::kName;
    node->name = token.text;
    macro_use.caller |= token.text == "caller";
    macro_use.varargs |= token.text == "varargs";
    macro_use.kwargs |= token.text == "kwargs";
  }
  return node;
}

Result ExpressionParser::Number() {
  const Token token = tokens_.Take();
  ExpressionPtr node = New(ExpressionKind::kConstant, token.line);
  if (token.type == TokenType::kFloat) {
    node->value = Value::Double(std::strtod(token.text.c_str(), nullptr));
    return node;
  }
  std::string_view digits = token.text;
  int base = 10;
  if (digits.size() > 2 && digits[0] == '0' && !(digits[1] >= '0' && digits[1] <= '9')) {
    base = (digits[1] | 0x20) == 'x' ? 16 : (digits[1] | 0x20) == 'o' ? 8 : 2;
    digits.remove_prefix(2);
  }
  int64_t number = 0;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (end.ec != std::errc() || end.ptr != digits.data() + digits.size()) {
    return TokenStream::FailAt(token.line,
                               absl::StrFormat("'%s' is not a 64-bit integer", token.text));
  }
  node->value = Value::Int(number);
  return node;
}

Result ExpressionParser::ListLiteral() {
  ExpressionPtr node = New(ExpressionKind::kList, tokens_.Take().line);
  while (!tokens_.IsOperator("]")) {
    if (!node->operands.empty()) SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.IsOperator("]")) break;
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr item, Expression());
    node->operands.push_back(std::move(item));
  }
  SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return Finish(std::move(node));
}

Result ExpressionParser::DictLiteral() {
  ExpressionPtr node = New(ExpressionKind::kDict, tokens_.Take().line);
  while (!tokens_.IsOperator("}")) {
    if (!node->operands.empty()) SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.IsOperator("}")) break;
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr key, Expression());
    SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr value, Expression());
    node->operands.push_back(std::move(key));
    node->operands.push_back(std::move(value));
  }
  SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator("}"));
  return Finish(std::move(node));
}

bool ExpressionParser::AtTupleEnd(std::string_view end) const {
  return tokens_.Is(TokenType::kVariableEnd) || tokens_.Is(TokenType::kBlockEnd) ||
         tokens_.IsOperator(")") || (!end.empty() && tokens_.IsName(end));
}

Result ExpressionParser::Tuple(bool with_conditional, std::string_view end) {
  const int line = tokens_.line();
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr first, Expression(with_conditional));
  if (!tokens_.IsOperator(",")) return first;
  ExpressionPtr node = New(ExpressionKind::kTuple, line);
  node->operands.push_back(std::move(first));
  while (tokens_.SkipOperator(",")) {
    if (AtTupleEnd(end)) break;
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr item, Expression(with_conditional));
    node->operands.push_back(std::move(item));
  }
  return Finish(std::move(node));
}

Result ExpressionParser::Target(bool with_namespace, std::string_view end) {
  if (++nesting_ > kMaxSyntaxDepth) return tokens_.Fail("a target is nested too deeply");
  const auto leave = absl::MakeCleanup([this] { --nesting_; });
  const int line = tokens_.line();
  SPIN_ASSIGN_OR_RETURN(ExpressionPtr first, TargetItem(with_namespace));
  if (!tokens_.IsOperator(",")) return first;
  ExpressionPtr node = New(ExpressionKind::kTuple, line);
  node->operands.push_back(std::move(first));
  while (tokens_.SkipOperator(",")) {
    if (AtTupleEnd(end) || tokens_.IsOperator("=")) break;
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr item, TargetItem(with_namespace));
    node->operands.push_back(std::move(item));
  }
  return Finish(std::move(node));
}

Result ExpressionParser::TargetItem(bool with_namespace) {
  if (tokens_.SkipOperator("(")) {
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr inner, Target(with_namespace, ""));
    SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    return inner;
  }
  const int line = tokens_.line();
  SPIN_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName("a name to assign to"));
  for (const std::string_view word : {"true", "false", "none", "True", "False", "None"}) {
    if (name == word) {
      return TokenStream::FailAt(line, absl::StrFormat("'%s' cannot be assigned to", name));
    }
  }
  ExpressionPtr node = New(ExpressionKind::kName, line);
  node->name = std::move(name);
  if (!with_namespace || !tokens_.SkipOperator(".")) {
    known_.Define(node->name);
    return node;
  }
  ExpressionPtr attribute = New(ExpressionKind::kAttribute, line);
  SPIN_ASSIGN_OR_RETURN(attribute->name, tokens_.ExpectName("the name of an attribute"));
  known_.DefineAttribute(attribute->name);
  attribute->operands.push_back(std::move(node));
  return Finish(std::move(attribute));
}

}  // namespace spin::jinja
