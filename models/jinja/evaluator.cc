#include "models/jinja/evaluator.h"

#include <absl/cleanup/cleanup.h>

#include <utility>

#include "common/check.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"

namespace spin::jinja {

Evaluator::Evaluator(const Value& variables, NowSeconds now_seconds) : variables_(variables) {
  SPIN_CHECK(variables.is_map());
  context_.now_seconds = std::move(now_seconds);
}

Evaluator::~Evaluator() {
  for (const std::shared_ptr<Object>& object : context_.objects) object->Clear();
}

absl::StatusOr<std::string> Evaluator::Run(const Body& body) {
  std::string text;
  out_ = &text;
  const auto scope = std::make_shared<Scope>(nullptr);
  SPIN_RETURN_IF_ERROR(Execute(body, scope).status());
  return text;
}

absl::Status Evaluator::Locate(const absl::Status& status, int line) {
  if (status.ok() || located_ || context_.raised) return status;
  located_ = true;
  return Annotate(status, absl::StrFormat("line %d", line));
}

absl::Status Evaluator::WriteText(std::string_view text) {
  SPIN_RETURN_IF_ERROR(context_.Bytes(text.size()));
  if (out_->size() + text.size() > kMaxStringBytes) {
    return InvalidArgument("the text is longer than %d bytes", kMaxStringBytes);
  }
  out_->append(text);
  return absl::OkStatus();
}

absl::Status Evaluator::Write(const Value& value) {
  if (value.is_string()) return WriteText(value.string_value());
  SPIN_ASSIGN_OR_RETURN(const std::string text, Str(context_, value));
  return WriteText(text);
}

absl::StatusOr<Evaluator::Flow> Evaluator::Execute(const Body& body, const ScopePtr& scope) {
  for (const StatementPtr& statement : body) {
    absl::StatusOr<Flow> flow = Execute(*statement, scope);
    if (!flow.ok()) return Locate(flow.status(), statement->line);
    if (*flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::Execute(const Statement& statement,
                                                   const ScopePtr& scope) {
  SPIN_RETURN_IF_ERROR(context_.Step());
  if (++depth_ > kMaxDepth) return InvalidArgument("macros or blocks are nested too deeply");
  const auto leave = absl::MakeCleanup([this] { --depth_; });
  switch (statement.kind) {
    case StatementKind::kText:
      SPIN_RETURN_IF_ERROR(WriteText(statement.text));
      return Flow::kNext;
    case StatementKind::kOutput: {
      SPIN_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression, scope));
      SPIN_RETURN_IF_ERROR(Write(value));
      return Flow::kNext;
    }
    case StatementKind::kIf:
      return If(statement, scope);
    case StatementKind::kFor:
      return For(statement, scope);
    case StatementKind::kSet:
    case StatementKind::kSetBlock:
      return Set(statement, scope);
    case StatementKind::kMacro:
      scope->Set(statement.macro->name, NewMacro(*statement.macro, scope));
      return Flow::kNext;
    case StatementKind::kCallBlock:
      return CallBlock(statement, scope);
    case StatementKind::kFilterBlock: {
      SPIN_ASSIGN_OR_RETURN(std::string text, Capture(statement.body, scope));
      SPIN_ASSIGN_OR_RETURN(const Value value,
                            FilterText(statement.expression.get(), std::move(text), scope));
      SPIN_RETURN_IF_ERROR(Write(value));
      return Flow::kNext;
    }
    case StatementKind::kWith:
      return With(statement, scope);
    case StatementKind::kScope:
      return Execute(statement.body, std::make_shared<Scope>(scope));
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::If(const Statement& statement, const ScopePtr& scope) {
  for (const auto& [test, body] : statement.branches) {
    SPIN_ASSIGN_OR_RETURN(const Value value, Evaluate(*test, scope));
    if (Truthy(value)) return Execute(body, scope);
  }
  return Execute(statement.body, scope);
}

absl::StatusOr<ValueList> Evaluator::LoopItems(const Statement& statement, const ScopePtr& scope) {
  SPIN_ASSIGN_OR_RETURN(const Value sequence, Evaluate(*statement.expression, scope));
  SPIN_ASSIGN_OR_RETURN(ValueList items, Iterate(context_, sequence));
  if (statement.test == nullptr) return items;
  ValueList kept;
  for (Value& item : items) {
    const auto test_scope = std::make_shared<Scope>(scope);
    SPIN_RETURN_IF_ERROR(Assign(*statement.target, item, test_scope));
    SPIN_ASSIGN_OR_RETURN(const Value holds, Evaluate(*statement.test, test_scope));
    if (Truthy(holds)) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<Evaluator::Flow> Evaluator::For(const Statement& statement, const ScopePtr& scope) {
  SPIN_ASSIGN_OR_RETURN(ValueList items, LoopItems(statement, scope));
  if (items.empty()) return Execute(statement.other, std::make_shared<Scope>(scope));
  const auto loop = std::make_shared<Loop>(std::move(items));
  context_.objects.push_back(loop);
  for (size_t i = 0; i < loop->items.size(); ++i) {
    SPIN_RETURN_IF_ERROR(context_.Step());
    const auto inner = std::make_shared<Scope>(scope);
    loop->index0 = static_cast<int64_t>(i);
    inner->Set("loop", Value::FromObject(loop));
    SPIN_RETURN_IF_ERROR(Assign(*statement.target, loop->items[i], inner));
    SPIN_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body, inner));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

absl::Status Evaluator::Assign(const Expression& target, const Value& value,
                               const ScopePtr& scope) {
  if (target.kind == ExpressionKind::kName) {
    scope->Set(target.name, value);
    return absl::OkStatus();
  }
  if (target.kind == ExpressionKind::kTuple) {
    SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context_, value));
    if (items.size() != target.operands.size()) {
      return InvalidArgument("%d values cannot be unpacked into %d names", items.size(),
                             target.operands.size());
    }
    for (size_t i = 0; i < items.size(); ++i) {
      SPIN_RETURN_IF_ERROR(Assign(*target.operands[i], items[i], scope));
    }
    return absl::OkStatus();
  }
  SPIN_ASSIGN_OR_RETURN(const Value object, Evaluate(*target.operands[0], scope));
  const auto space = ObjectAs<Namespace>(object, ObjectType::kNamespace);
  if (space == nullptr) {
    return InvalidArgument("'%s' is no namespace: its attributes cannot be set",
                           target.operands[0]->name);
  }
  if (target.name.starts_with("_")) {
    return InvalidArgument("a namespace cannot have the attribute '%s': it starts with '_'",
                           target.name);
  }
  space->attributes.Set(target.name, value);
  return absl::OkStatus();
}

absl::StatusOr<Evaluator::Flow> Evaluator::Set(const Statement& statement, const ScopePtr& scope) {
  Value value;
  if (statement.kind == StatementKind::kSet) {
    SPIN_ASSIGN_OR_RETURN(value, Evaluate(*statement.expression, scope));
  } else {
    SPIN_ASSIGN_OR_RETURN(std::string text, Capture(statement.body, scope));
    SPIN_ASSIGN_OR_RETURN(value, FilterText(statement.expression.get(), std::move(text), scope));
  }
  SPIN_RETURN_IF_ERROR(Assign(*statement.target, value, scope));
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::With(const Statement& statement, const ScopePtr& scope) {
  const auto inner = std::make_shared<Scope>(scope);
  // Values see the scope around the block, not each other.
  for (const auto& [target, expression] : statement.bindings) {
    SPIN_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression, scope));
    SPIN_RETURN_IF_ERROR(Assign(*target, value, inner));
  }
  return Execute(statement.body, inner);
}

absl::StatusOr<std::string> Evaluator::Capture(const Body& body, const ScopePtr& scope) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  const absl::Status status = Execute(body, std::make_shared<Scope>(scope)).status();
  out_ = outer;
  SPIN_RETURN_IF_ERROR(status);
  return text;
}

absl::StatusOr<Value> Evaluator::FilterText(const Expression* filters, std::string text,
                                            const ScopePtr& scope) {
  if (filters == nullptr) return Value::String(std::move(text));
  Value outer = std::exchange(block_text_, Value::String(std::move(text)));
  absl::StatusOr<Value> value = Evaluate(*filters, scope);
  block_text_ = std::move(outer);
  return value;
}

Value Evaluator::NewMacro(const MacroStatement& definition, const ScopePtr& scope) {
  auto macro = std::make_shared<Macro>(&definition, scope);
  context_.objects.push_back(macro);
  return Value::FromObject(std::move(macro));
}

absl::StatusOr<Evaluator::Flow> Evaluator::CallBlock(const Statement& statement,
                                                     const ScopePtr& scope) {
  SPIN_ASSIGN_OR_RETURN(Arguments arguments, CallArguments(*statement.expression, scope));
  arguments.keyword.emplace_back("caller", NewMacro(*statement.macro, scope));
  SPIN_ASSIGN_OR_RETURN(const Value value, CallOf(*statement.expression, arguments, scope));
  SPIN_RETURN_IF_ERROR(Write(value));
  return Flow::kNext;
}

}  // namespace spin::jinja
