// One render: walks the syntax tree of a template with the caller's variables and writes text.
//
// One Evaluator per render, one thread. Everything it makes is gone with it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/jinja/arguments.h"
#include "models/jinja/ast.h"
#include "models/jinja/context.h"
#include "models/jinja/objects.h"
#include "models/jinja/scope.h"
#include "models/jinja/value.h"

namespace spin::jinja {

class Evaluator {
 public:
  // `variables` is a mapping and outlives the evaluator.
  Evaluator(const Value& variables, NowSeconds now_seconds);
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  // The text of `body`. Errors are "line N: ..."; of raise_exception the template's own words.
  absl::StatusOr<std::string> Run(const Body& body);

 private:
  using ScopePtr = std::shared_ptr<Scope>;

  enum class Flow { kNext, kBreak, kContinue };

  // Statements (evaluator.cc).
  absl::StatusOr<Flow> Execute(const Body& body, const ScopePtr& scope);
  absl::StatusOr<Flow> Execute(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> If(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> For(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> Set(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> With(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> CallBlock(const Statement& statement, const ScopePtr& scope);
  // The items of a for block whose test holds.
  absl::StatusOr<ValueList> LoopItems(const Statement& statement, const ScopePtr& scope);
  absl::Status Assign(const Expression& target, const Value& value, const ScopePtr& scope);
  // The text of `body` in a scope of its own.
  absl::StatusOr<std::string> Capture(const Body& body, const ScopePtr& scope);
  // Captured text through the filters of a block.
  absl::StatusOr<Value> FilterText(const Expression* filters, std::string text,
                                   const ScopePtr& scope);
  absl::Status Write(const Value& value);
  absl::Status WriteText(std::string_view text);
  Value NewMacro(const MacroStatement& definition, const ScopePtr& scope);

  // Expressions (expressions.cc).
  absl::StatusOr<Value> Evaluate(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateNode(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> Name(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> Items(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> DictLiteral(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> Subscript(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> SliceOf(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> Comparison(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> Concat(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> Logic(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Arguments> CallArguments(const Expression& node, const ScopePtr& scope);
  absl::StatusOr<Value> Call(const Value& callee, const Arguments& arguments);
  static absl::Status BindMacro(const MacroStatement& definition, const Arguments& arguments,
                                Scope* scope, std::vector<bool>* given);
  absl::StatusOr<Value> CallMacro(const Macro& macro, const Arguments& arguments);
  absl::StatusOr<Value> CallOf(const Expression& node, const Arguments& arguments,
                               const ScopePtr& scope);

  // Puts the line in front of an error that has none yet.
  absl::Status Locate(const absl::Status& status, int line);

  const Value& variables_;
  Context context_;
  std::string* out_ = nullptr;  // where text goes: the result, or what a block captures
  Value block_text_;            // what the filters of a block apply to
  int depth_ = 0;               // nested evaluations
  bool located_ = false;        // the error has its line
};

}  // namespace spin::jinja
