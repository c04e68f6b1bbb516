// The part of ExpressionParser behind a primary expression: attributes, subscripts, calls, filters
// and tests.
#include "models/jinja/expression_parser.h"

namespace spin::jinja {

using Result = ExpressionParser::Result;

Result ExpressionParser::Postfix(ExpressionPtr node) {
  while (true) {
    if (tokens_.IsOperator(".")) {
      SPIN_ASSIGN_OR_RETURN(node, Attribute(std::move(node)));
    } else if (tokens_.IsOperator("[")) {
      SPIN_ASSIGN_OR_RETURN(node, Subscript(std::move(node)));
    } else if (tokens_.IsOperator("(")) {
      SPIN_ASSIGN_OR_RETURN(node, Call(std::move(node)));
    } else {
      return node;
    }
  }
}

Result ExpressionParser::FiltersAndTests(ExpressionPtr node) {
  while (true) {
    if (tokens_.IsOperator("|")) {
      tokens_.Take();
      SPIN_ASSIGN_OR_RETURN(node, Filter(std::move(node)));
    } else if (tokens_.IsName("is")) {
      SPIN_ASSIGN_OR_RETURN(node, Test(std::move(node)));
    } else if (tokens_.IsOperator("(")) {
      SPIN_ASSIGN_OR_RETURN(node, Call(std::move(node)));
    } else {
      return node;
    }
  }
}

Result ExpressionParser::Attribute(ExpressionPtr node) {
  const int line = tokens_.Take().line;
  if (tokens_.Is(TokenType::kInteger)) {  // items.0
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr index, Number());
    return Binary(ExpressionKind::kSubscript, "", line, std::move(node), std::move(index));
  }
  ExpressionPtr attribute = New(ExpressionKind::kAttribute, line);
  SPIN_ASSIGN_OR_RETURN(attribute->name, tokens_.ExpectName("the name of an attribute"));
  attribute->operands.push_back(std::move(node));
  return Finish(std::move(attribute));
}

Result ExpressionParser::Subscript(ExpressionPtr node) {
  const int line = tokens_.Take().line;
  ExpressionPtr bounds[3];
  int colons = 0;
  for (int part = 0; part < 3 && !tokens_.IsOperator("]"); ++part) {
    if (!tokens_.IsOperator(":")) {
      SPIN_ASSIGN_OR_RETURN(bounds[part], Expression());
    }
    if (part == 2 || !tokens_.SkipOperator(":")) break;
    ++colons;
  }
  SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  if (colons == 0) {
    if (bounds[0] == nullptr) return TokenStream::FailAt(line, "expected a subscript, found ']'");
    return Binary(ExpressionKind::kSubscript, "", line, std::move(node), std::move(bounds[0]));
  }
  ExpressionPtr slice = New(ExpressionKind::kSlice, line);
  slice->operands.push_back(std::move(node));
  for (ExpressionPtr& bound : bounds) slice->operands.push_back(std::move(bound));
  return Finish(std::move(slice));
}

absl::Status ExpressionParser::CallArguments(jinja::Expression* call) {
  SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  bool first = true;
  while (!tokens_.IsOperator(")")) {
    if (!first) SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    first = false;
    if (tokens_.IsOperator(")")) break;
    if (tokens_.IsOperator("*") || tokens_.IsOperator("**")) {
      return tokens_.Fail("unpacking arguments with * or ** is not supported");
    }
    const bool is_keyword = tokens_.Is(TokenType::kName) &&
                            tokens_.next().type == TokenType::kOperator &&
                            tokens_.next().text == "=";
    if (!is_keyword) {
      if (!call->keywords.empty())
        return tokens_.Fail("an argument without a name follows one with");
      SPIN_ASSIGN_OR_RETURN(ExpressionPtr value, Expression());
      call->operands.push_back(std::move(value));
      continue;
    }
    std::string name = tokens_.Take().text;
    tokens_.Take();
    for (const auto& [other, value] : call->keywords) {
      if (other == name)
        return tokens_.Fail(absl::StrFormat("the argument '%s' is given twice", name));
    }
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr value, Expression());
    call->keywords.emplace_back(std::move(name), std::move(value));
  }
  return tokens_.ExpectOperator(")");
}

Result ExpressionParser::Call(ExpressionPtr node) {
  ExpressionPtr call = New(ExpressionKind::kCall, tokens_.line());
  call->operands.push_back(std::move(node));
  SPIN_RETURN_IF_ERROR(CallArguments(call.get()));
  SPIN_RETURN_IF_ERROR(known_.Note(*call));
  return Finish(std::move(call));
}

Result ExpressionParser::Filter(ExpressionPtr node) {
  ExpressionPtr filter = New(ExpressionKind::kFilter, tokens_.line());
  SPIN_ASSIGN_OR_RETURN(filter->name, tokens_.ExpectName("the name of a filter"));
  filter->operands.push_back(std::move(node));
  if (tokens_.IsOperator("(")) SPIN_RETURN_IF_ERROR(CallArguments(filter.get()));
  SPIN_RETURN_IF_ERROR(known_.Note(*filter));
  return Finish(std::move(filter));
}

Result ExpressionParser::BlockFilters(bool first_is_name) {
  if (!first_is_name && !tokens_.IsOperator("|")) return ExpressionPtr();
  ExpressionPtr node = New(ExpressionKind::kBlockText, tokens_.line());
  while (first_is_name || tokens_.SkipOperator("|")) {
    first_is_name = false;
    SPIN_ASSIGN_OR_RETURN(node, Filter(std::move(node)));
  }
  return node;
}

Result ExpressionParser::Test(ExpressionPtr node) {
  const int line = tokens_.Take().line;
  const bool negated = tokens_.SkipName("not");
  ExpressionPtr test = New(ExpressionKind::kTest, line);
  SPIN_ASSIGN_OR_RETURN(test->name, tokens_.ExpectName("the name of a test"));
  test->operands.push_back(std::move(node));
  const bool bare_argument =
      (tokens_.Is(TokenType::kName) && !tokens_.IsName("else") && !tokens_.IsName("or") &&
       !tokens_.IsName("and") && !tokens_.IsName("is")) ||
      tokens_.Is(TokenType::kString) || tokens_.Is(TokenType::kInteger) ||
      tokens_.Is(TokenType::kFloat) || tokens_.IsOperator("[") || tokens_.IsOperator("{");
  if (tokens_.IsOperator("(")) {
    SPIN_RETURN_IF_ERROR(CallArguments(test.get()));
  } else if (tokens_.IsName("is")) {
    return tokens_.Fail("tests cannot be chained with 'is'");
  } else if (bare_argument) {
    SPIN_ASSIGN_OR_RETURN(ExpressionPtr argument, Primary());
    SPIN_ASSIGN_OR_RETURN(argument, Postfix(std::move(argument)));
    test->operands.push_back(std::move(argument));
  }
  SPIN_RETURN_IF_ERROR(known_.Note(*test));
  SPIN_ASSIGN_OR_RETURN(test, Finish(std::move(test)));
  if (!negated) return test;
  ExpressionPtr inverse = New(ExpressionKind::kNot, line);
  inverse->operands.push_back(std::move(test));
  return Finish(std::move(inverse));
}

}  // namespace spin::jinja
