#include "models/jinja/parser.h"

#include <initializer_list>

#include <absl/cleanup/cleanup.h>

#include "models/jinja/expression_parser.h"
#include "models/jinja/known_names.h"
#include "models/jinja/lexer.h"
#include "models/jinja/limits.h"
#include "models/jinja/token_stream.h"

namespace spin::jinja {

namespace {

using EndTags = std::initializer_list<std::string_view>;
using Result = absl::StatusOr<StatementPtr>;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens)
      : tokens_(std::move(tokens)), expressions_(&tokens_, &known_) {}

  absl::StatusOr<Body> Run() {
    SPIN_ASSIGN_OR_RETURN(Body body, Statements({}, 1));
    SPIN_RETURN_IF_ERROR(known_.Check());
    return body;
  }

 private:
  static StatementPtr New(StatementKind kind, int line) {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }

  // Statements up to a tag of `ends`, which is left as the current token (none: to the end of the
  // template).
  absl::StatusOr<Body> Statements(EndTags ends, int line) {
    if (++nesting_ > kMaxSyntaxDepth) return tokens_.Fail("blocks are nested too deeply");
    const auto leave = absl::MakeCleanup([this] { --nesting_; });
    Body body;
    while (!tokens_.Is(TokenType::kEnd)) {
      Token token = tokens_.Take();
      if (token.type == TokenType::kData) {
        body.push_back(New(StatementKind::kText, token.line));
        body.back()->text = std::move(token.text);
      } else if (token.type == TokenType::kVariableBegin) {
        SPIN_ASSIGN_OR_RETURN(ExpressionPtr expression, expressions_.Tuple());
        SPIN_RETURN_IF_ERROR(tokens_.Expect(TokenType::kVariableEnd, "'}}'"));
        body.push_back(New(StatementKind::kOutput, token.line));
        body.back()->expression = std::move(expression);
      } else {
        for (const std::string_view end : ends) {
          if (tokens_.IsName(end)) return body;
        }
        SPIN_ASSIGN_OR_RETURN(StatementPtr statement, Tag());
        SPIN_RETURN_IF_ERROR(EndTag());
        body.push_back(std::move(statement));
      }
    }
    if (ends.size() == 0) return body;
    return TokenStream::FailAt(
        line, absl::StrFormat("the block is never closed by '{%% %s %%}'", *(ends.end() - 1)));
  }

  absl::Status EndTag() { return tokens_.Expect(TokenType::kBlockEnd, "'%}'"); }

  // The rest of an opening tag, its body, and the name of the end tag when that is the only way to
  // end.
  absl::StatusOr<Body> BodyUntil(EndTags ends) {
    const int line = tokens_.line();
    tokens_.SkipOperator(":");
    SPIN_RETURN_IF_ERROR(EndTag());
    return Statements(ends, line);
  }
  absl::StatusOr<Body> ClosedBody(std::string_view end) {
    SPIN_ASSIGN_OR_RETURN(Body body, BodyUntil({end}));
    tokens_.Take();
    return body;
  }

  Result Tag() {
    const int line = tokens_.line();
    SPIN_ASSIGN_OR_RETURN(const std::string tag, tokens_.ExpectName("the name of a tag"));
    if (tag == "for") return For(line);
    if (tag == "if") return If(line);
    if (tag == "set") return Set(line);
    if (tag == "macro") return MacroTag(line);
    if (tag == "call") return CallBlock(line);
    if (tag == "filter") return FilterBlock(line);
    if (tag == "with") return With(line);
    if (tag == "print") return Print(line);
    if (tag == "generation") return Generation(line);
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0)
        return TokenStream::FailAt(line, absl::StrFormat("'%s' outside of a loop", tag));
      return New(tag == "break" ? StatementKind::kBreak : StatementKind::kContinue, line);
    }
    if (tag.substr(0, 3) == "end" || tag == "else" || tag == "elif") {
      return TokenStream::FailAt(line, absl::StrFormat("'%s' closes nothing here", tag));
    }
    return TokenStream::FailAt(line, absl::StrFormat("unknown tag '%s'", tag));
  }

  Result For(int line) {
    StatementPtr loop = New(StatementKind::kFor, line);
    SPIN_ASSIGN_OR_RETURN(loop->target, expressions_.Target(/*with_namespace=*/false, "in"));
    if (!tokens_.SkipName("in")) {
      return tokens_.Fail(absl::StrFormat("expected 'in', found %s", Describe(tokens_.current())));
    }
    SPIN_ASSIGN_OR_RETURN(loop->expression,
                          expressions_.Tuple(/*with_conditional=*/false, "recursive"));
    if (tokens_.SkipName("if")) {
      SPIN_ASSIGN_OR_RETURN(loop->test, expressions_.Expression());
    }
    if (tokens_.IsName("recursive")) return tokens_.Fail("recursive loops are not supported");
    ++loops_;
    absl::StatusOr<Body> body = BodyUntil({"else", "endfor"});
    --loops_;
    if (!body.ok()) return body.status();
    loop->body = *std::move(body);
    if (tokens_.Take().text == "else") {
      SPIN_ASSIGN_OR_RETURN(loop->other, ClosedBody("endfor"));
    }
    return loop;
  }

  Result If(int line) {
    StatementPtr branch = New(StatementKind::kIf, line);
    while (true) {
      SPIN_ASSIGN_OR_RETURN(ExpressionPtr test, expressions_.Tuple(/*with_conditional=*/false));
      SPIN_ASSIGN_OR_RETURN(Body body, BodyUntil({"elif", "else", "endif"}));
      branch->branches.emplace_back(std::move(test), std::move(body));
      if (tokens_.SkipName("elif")) continue;
      if (tokens_.Take().text == "else") {
        SPIN_ASSIGN_OR_RETURN(branch->body, ClosedBody("endif"));
      }
      return branch;
    }
  }

  Result Set(int line) {
    StatementPtr set = New(StatementKind::kSet, line);
    SPIN_ASSIGN_OR_RETURN(set->target, expressions_.Target(/*with_namespace=*/true, ""));
    if (tokens_.SkipOperator("=")) {
      SPIN_ASSIGN_OR_RETURN(set->expression, expressions_.Tuple());
      return set;
    }
    set->kind = StatementKind::kSetBlock;
    SPIN_ASSIGN_OR_RETURN(set->expression, expressions_.BlockFilters(/*first_is_name=*/false));
    SPIN_ASSIGN_OR_RETURN(set->body, ClosedBody("endset"));
    return set;
  }

  // (a, b=1): parameters of a macro or call block.
  absl::Status Signature(MacroStatement* macro) {
    SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.IsOperator(")")) {
      if (!macro->parameters.empty()) SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      SPIN_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName("the name of a parameter"));
      known_.Define(name);
      macro->parameters.push_back(std::move(name));
      if (tokens_.SkipOperator("=")) {
        SPIN_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.Expression());
        macro->defaults.push_back(std::move(value));
      } else if (!macro->defaults.empty()) {
        return tokens_.Fail("a parameter without a default follows one with");
      }
    }
    return tokens_.ExpectOperator(")");
  }

  // The body of a macro or call block: outside of the loops around it, with its own use of caller,
  // varargs, kwargs.
  absl::Status MacroBody(std::string_view end, MacroStatement* macro) {
    const ExpressionParser::MacroUse outer_use = expressions_.macro_use;
    const int outer_loops = loops_;
    expressions_.macro_use = {};
    loops_ = 0;
    known_.Define("caller");
    SPIN_ASSIGN_OR_RETURN(macro->body, ClosedBody(end));
    macro->uses_caller = expressions_.macro_use.caller;
    macro->uses_varargs = expressions_.macro_use.varargs;
    macro->uses_kwargs = expressions_.macro_use.kwargs;
    loops_ = outer_loops;
    expressions_.macro_use = outer_use;
    return absl::OkStatus();
  }

  Result MacroTag(int line) {
    StatementPtr statement = New(StatementKind::kMacro, line);
    statement->macro = std::make_unique<MacroStatement>();
    SPIN_ASSIGN_OR_RETURN(statement->macro->name, tokens_.ExpectName("the name of the macro"));
    known_.Define(statement->macro->name);
    SPIN_RETURN_IF_ERROR(Signature(statement->macro.get()));
    SPIN_RETURN_IF_ERROR(MacroBody("endmacro", statement->macro.get()));
    return statement;
  }

  Result CallBlock(int line) {
    StatementPtr statement = New(StatementKind::kCallBlock, line);
    statement->macro = std::make_unique<MacroStatement>();
    statement->macro->name = "caller";
    if (tokens_.IsOperator("(")) SPIN_RETURN_IF_ERROR(Signature(statement->macro.get()));
    SPIN_ASSIGN_OR_RETURN(statement->expression, expressions_.Expression());
    if (statement->expression->kind != ExpressionKind::kCall) {
      return TokenStream::FailAt(line, "a call block needs a call, as {% call name() %}");
    }
    SPIN_RETURN_IF_ERROR(MacroBody("endcall", statement->macro.get()));
    return statement;
  }

  Result FilterBlock(int line) {
    StatementPtr statement = New(StatementKind::kFilterBlock, line);
    SPIN_ASSIGN_OR_RETURN(statement->expression, expressions_.BlockFilters(/*first_is_name=*/true));
    SPIN_ASSIGN_OR_RETURN(statement->body, ClosedBody("endfilter"));
    return statement;
  }

  Result With(int line) {
    StatementPtr statement = New(StatementKind::kWith, line);
    while (!tokens_.Is(TokenType::kBlockEnd)) {
      if (!statement->bindings.empty()) SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      SPIN_ASSIGN_OR_RETURN(ExpressionPtr target,
                            expressions_.Target(/*with_namespace=*/false, ""));
      SPIN_RETURN_IF_ERROR(tokens_.ExpectOperator("="));
      SPIN_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.Expression());
      statement->bindings.emplace_back(std::move(target), std::move(value));
    }
    SPIN_ASSIGN_OR_RETURN(statement->body, ClosedBody("endwith"));
    return statement;
  }

  Result Print(int line) {
    StatementPtr statement = New(StatementKind::kOutput, line);
    SPIN_ASSIGN_OR_RETURN(statement->expression, expressions_.Expression());
    return statement;
  }

  // transformers marks the assistant's tokens by this tag; the text is the body's.
  Result Generation(int line) {
    StatementPtr statement = New(StatementKind::kScope, line);
    const int outer_loops = loops_;
    loops_ = 0;
    SPIN_ASSIGN_OR_RETURN(statement->body, ClosedBody("endgeneration"));
    loops_ = outer_loops;
    return statement;
  }

  TokenStream tokens_;
  KnownNames known_;
  ExpressionParser expressions_;
  int nesting_ = 0;  // blocks that are open
  int loops_ = 0;    // for blocks that break and continue may mean
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  SPIN_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace spin::jinja
