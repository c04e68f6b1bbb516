// Expressions of the template language, by the grammar of Jinja's own parser (one method per
// precedence level).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/jinja/ast.h"
#include "models/jinja/known_names.h"
#include "models/jinja/token_stream.h"

namespace spin::jinja {

class ExpressionParser {
 public:
  // Both outlive the parser.
  ExpressionParser(TokenStream* tokens, KnownNames* known) : tokens_(*tokens), known_(*known) {}

  using Result = absl::StatusOr<ExpressionPtr>;

  // One expression. Without `with_conditional`, "a if b" ends before the "if".
  Result Expression(bool with_conditional = true);

  // One expression, or a tuple without brackets. It ends at the end of the tag, at ')' or before
  // the name `end`.
  Result Tuple(bool with_conditional = true, std::string_view end = "");

  // What `set` and `for` assign to: a name, a tuple of targets, or (set only) an attribute of a
  // namespace.
  Result Target(bool with_namespace, std::string_view end);

  // name(args) | name | ...: filters applied to what a block captured. Null without any. With
  // `first_is_name` the first filter has no '|' before it.
  Result BlockFilters(bool first_is_name);

  // Names that a macro body uses in a special way; the statement parser reads and resets them.
  struct MacroUse {
    bool caller = false;
    bool varargs = false;
    bool kwargs = false;
  };
  MacroUse macro_use;

 private:
  Result Conditional();
  Result Or();
  Result And();
  Result Not();
  Result Comparison();
  Result Sum();
  Result Concat();
  Result Product();
  Result Power();
  Result Unary(bool with_filters);
  Result Primary();
  Result NameOrConstant();
  Result Number();
  Result ListLiteral();
  Result DictLiteral();
  Result Postfix(ExpressionPtr node);
  Result FiltersAndTests(ExpressionPtr node);
  Result Attribute(ExpressionPtr node);
  Result Subscript(ExpressionPtr node);
  Result Call(ExpressionPtr node);
  Result Filter(ExpressionPtr node);
  Result Test(ExpressionPtr node);
  Result TargetItem(bool with_namespace);
  absl::Status CallArguments(::spin::jinja::Expression* call);
  bool AtTupleEnd(std::string_view end) const;

  // Sets the depth of a finished node; an error when it is too deep (evaluation and destruction
  // recurse).
  Result Finish(ExpressionPtr node);
  Result Binary(ExpressionKind kind, std::string op, int line, ExpressionPtr left,
                ExpressionPtr right);
  static ExpressionPtr New(ExpressionKind kind, int line);

  TokenStream& tokens_;
  KnownNames& known_;
  int nesting_ = 0;  // calls of Unary in progress
};

}  // namespace spin::jinja
