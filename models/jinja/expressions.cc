// The expressions of Evaluator.
#include <absl/cleanup/cleanup.h>

#include <vector>

#include "models/jinja/attributes.h"
#include "models/jinja/evaluator.h"
#include "models/jinja/filters.h"
#include "models/jinja/functions.h"
#include "models/jinja/methods.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/tests_builtin.h"

namespace spin::jinja {

using Result = absl::StatusOr<Value>;

Result Evaluator::Evaluate(const Expression& node, const ScopePtr& scope) {
  SPIN_RETURN_IF_ERROR(context_.Step());
  if (++depth_ > kMaxDepth) return InvalidArgument("the template nests its calls too deeply");
  const auto leave = absl::MakeCleanup([this] { --depth_; });
  Result value = EvaluateNode(node, scope);
  if (!value.ok()) return Locate(value.status(), node.line);
  return value;
}

Result Evaluator::EvaluateNode(const Expression& node, const ScopePtr& scope) {
  switch (node.kind) {
    case ExpressionKind::kConstant:
      return node.value;
    case ExpressionKind::kName:
      return Name(node, scope);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
      return Items(node, scope);
    case ExpressionKind::kDict:
      return DictLiteral(node, scope);
    case ExpressionKind::kSubscript:
      return Subscript(node, scope);
    case ExpressionKind::kSlice:
      return SliceOf(node, scope);
    case ExpressionKind::kBlockText:
      return block_text_;
    case ExpressionKind::kComparison:
      return Comparison(node, scope);
    case ExpressionKind::kConcat:
      return Concat(node, scope);
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
    case ExpressionKind::kConditional:
      return Logic(node, scope);
    case ExpressionKind::kCall: {
      SPIN_ASSIGN_OR_RETURN(const Arguments arguments, CallArguments(node, scope));
      return CallOf(node, arguments, scope);
    }
    default:
      break;
  }
  // The others have a first operand that is always evaluated.
  SPIN_ASSIGN_OR_RETURN(const Value first, Evaluate(*node.operands[0], scope));
  switch (node.kind) {
    case ExpressionKind::kAttribute:
      return GetAttribute(context_, first, node.name);
    case ExpressionKind::kNot:
      return Value::Bool(!Truthy(first));
    case ExpressionKind::kNegative:
      return Negate(first);
    case ExpressionKind::kPositive:
      return Arithmetic(context_, "+", Value::Int(0), first);
    case ExpressionKind::kArithmetic: {
      SPIN_ASSIGN_OR_RETURN(const Value second, Evaluate(*node.operands[1], scope));
      return Arithmetic(context_, node.name, first, second);
    }
    case ExpressionKind::kFilter: {
      SPIN_ASSIGN_OR_RETURN(const Arguments arguments, CallArguments(node, scope));
      return CallFilter(context_, node.name, first, arguments);
    }
    default: {  // kTest
      SPIN_ASSIGN_OR_RETURN(const Arguments arguments, CallArguments(node, scope));
      SPIN_ASSIGN_OR_RETURN(const bool holds, CallTest(context_, node.name, first, arguments));
      return Value::Bool(holds);
    }
  }
}

Result Evaluator::Name(const Expression& node, const ScopePtr& scope) {
  if (const Value* value = scope->Find(node.name)) return *value;
  if (const Value* value = variables_.map().Find(node.name)) return *value;
  if (IsFunction(node.name)) return Value::FromObject(std::make_shared<Function>(node.name));
  return Value::Undefined(absl::StrFormat("'%s' is undefined", node.name));
}

Result Evaluator::Items(const Expression& node, const ScopePtr& scope) {
  ValueList items;
  items.reserve(node.operands.size());
  for (const ExpressionPtr& operand : node.operands) {
    SPIN_ASSIGN_OR_RETURN(Value item, Evaluate(*operand, scope));
    items.push_back(std::move(item));
  }
  const bool is_list = node.kind == ExpressionKind::kList;
  return context_.NewSequence(is_list ? SequenceType::kList : SequenceType::kTuple,
                              std::move(items));
}

Result Evaluator::DictLiteral(const Expression& node, const ScopePtr& scope) {
  Dict dict;
  for (size_t i = 0; i + 1 < node.operands.size(); i += 2) {
    SPIN_ASSIGN_OR_RETURN(Value key, Evaluate(*node.operands[i], scope));
    SPIN_ASSIGN_OR_RETURN(Value value, Evaluate(*node.operands[i + 1], scope));
    if (!Dict::IsKey(key)) return InvalidArgument("%s cannot be a key", TypeName(key));
    dict.Set(std::move(key), std::move(value));
  }
  return Context::Bounded(Value::Map(std::move(dict)));
}

Result Evaluator::Subscript(const Expression& node, const ScopePtr& scope) {
  SPIN_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.operands[0], scope));
  SPIN_ASSIGN_OR_RETURN(const Value key, Evaluate(*node.operands[1], scope));
  if (value.is_string()) {
    SPIN_RETURN_IF_ERROR(context_.Step(static_cast<int64_t>(value.string_value().size() / 64)));
  }
  return GetItem(value, key);
}

Result Evaluator::SliceOf(const Expression& node, const ScopePtr& scope) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i) {
    if (node.operands[i] == nullptr) {
      parts[i] = Value::None();
      continue;
    }
    SPIN_ASSIGN_OR_RETURN(parts[i], Evaluate(*node.operands[i], scope));
    if (i > 0 && parts[i].is_undefined()) return UndefinedError(parts[i]);
  }
  if (parts[0].is_string()) {
    SPIN_RETURN_IF_ERROR(context_.Step(static_cast<int64_t>(parts[0].string_value().size() / 64)));
  }
  return Slice(context_, parts[0], parts[1], parts[2], parts[3]);
}

Result Evaluator::Comparison(const Expression& node, const ScopePtr& scope) {
  SPIN_ASSIGN_OR_RETURN(Value left, Evaluate(*node.operands[0], scope));
  for (size_t i = 0; i < node.names.size(); ++i) {
    const std::string& op = node.names[i];
    SPIN_ASSIGN_OR_RETURN(Value right, Evaluate(*node.operands[i + 1], scope));
    bool holds = false;
    if (op == "==" || op == "!=") {
      SPIN_ASSIGN_OR_RETURN(holds, Equal(context_, left, right));
      holds = holds == (op == "==");
    } else if (op == "in" || op == "notin") {
      SPIN_ASSIGN_OR_RETURN(holds, Contains(context_, right, left));
      holds = holds == (op == "in");
    } else {
      SPIN_ASSIGN_OR_RETURN(const int order, Compare(context_, left, right));
      holds = op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
    }
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Result Evaluator::Concat(const Expression& node, const ScopePtr& scope) {
  std::string text;
  for (const ExpressionPtr& operand : node.operands) {
    SPIN_ASSIGN_OR_RETURN(const Value value, Evaluate(*operand, scope));
    SPIN_ASSIGN_OR_RETURN(const std::string part, Str(context_, value));
    SPIN_RETURN_IF_ERROR(context_.Bytes(text.size() + part.size()));
    text += part;
  }
  return Value::String(std::move(text));
}

Result Evaluator::Logic(const Expression& node, const ScopePtr& scope) {
  SPIN_ASSIGN_OR_RETURN(Value first, Evaluate(*node.operands[0], scope));
  const bool truth = Truthy(first);
  if (node.kind == ExpressionKind::kConditional) {
    if (truth) return Evaluate(*node.operands[1], scope);
    if (node.operands[2] != nullptr) return Evaluate(*node.operands[2], scope);
    return Value::Undefined("the condition is false and there is no else part");
  }
  if (truth == (node.kind == ExpressionKind::kOr)) return first;
  return Evaluate(*node.operands[1], scope);
}

absl::StatusOr<Arguments> Evaluator::CallArguments(const Expression& node, const ScopePtr& scope) {
  Arguments arguments;
  for (size_t i = 1; i < node.operands.size(); ++i) {
    SPIN_ASSIGN_OR_RETURN(Value value, Evaluate(*node.operands[i], scope));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, expression] : node.keywords) {
    SPIN_ASSIGN_OR_RETURN(Value value, Evaluate(*expression, scope));
    arguments.keyword.emplace_back(name, std::move(value));
  }
  return arguments;
}

Result Evaluator::CallOf(const Expression& node, const Arguments& arguments,
                         const ScopePtr& scope) {
  SPIN_ASSIGN_OR_RETURN(const Value callee, Evaluate(*node.operands[0], scope));
  return Call(callee, arguments);
}

Result Evaluator::Call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) return UndefinedError(callee);
  if (callee.is_object()) {
    switch (callee.object()->type()) {
      case ObjectType::kFunction:
        return CallFunction(context_, static_cast<const Function&>(*callee.object()).name,
                            arguments);
      case ObjectType::kMethod: {
        const auto& method = static_cast<const Method&>(*callee.object());
        return CallMethod(context_, method.self, method.name, arguments);
      }
      case ObjectType::kMacro:
        return CallMacro(static_cast<const Macro&>(*callee.object()), arguments);
      case ObjectType::kLoop:
        return InvalidArgument("recursive loops are not supported");
      case ObjectType::kNamespace:
        break;
    }
  }
  return InvalidArgument("%s cannot be called", TypeName(callee));
}

// Puts the arguments into the macro's scope; the positions of the parameters that were given go to
// `given`.
absl::Status Evaluator::BindMacro(const MacroStatement& definition, const Arguments& arguments,
                                  Scope* scope, std::vector<bool>* given) {
  const std::vector<std::string>& parameters = definition.parameters;
  ValueList rest;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i < parameters.size()) {
      scope->Set(parameters[i], arguments.positional[i]);
      (*given)[i] = true;
    } else {
      rest.push_back(arguments.positional[i]);
    }
  }
  if (!rest.empty() && !definition.uses_varargs) {
    return InvalidArgument("the macro '%s' takes at most %d arguments", definition.name,
                           parameters.size());
  }
  if (definition.uses_caller) scope->Set("caller", Value::Undefined("No caller defined"));
  Dict others;
  for (const auto& [name, value] : arguments.keyword) {
    size_t i = 0;
    while (i < parameters.size() && parameters[i] != name) ++i;
    if (i < parameters.size()) {
      if ((*given)[i])
        return InvalidArgument("the macro '%s' was given '%s' twice", definition.name, name);
      scope->Set(parameters[i], value);
      (*given)[i] = true;
    } else if (name == "caller" && definition.uses_caller) {
      scope->Set("caller", value);
    } else if (definition.uses_kwargs) {
      others.Set(name, value);
    } else {
      return InvalidArgument("the macro '%s' has no argument '%s'", definition.name, name);
    }
  }
  if (definition.uses_varargs) scope->Set("varargs", Value::Tuple(std::move(rest)));
  if (definition.uses_kwargs) scope->Set("kwargs", Value::Map(std::move(others)));
  return absl::OkStatus();
}

Result Evaluator::CallMacro(const Macro& macro, const Arguments& arguments) {
  const MacroStatement& definition = *macro.definition;
  const size_t count = definition.parameters.size();
  const auto scope = std::make_shared<Scope>(macro.scope);
  std::vector<bool> given(count, false);
  SPIN_RETURN_IF_ERROR(BindMacro(definition, arguments, scope.get(), &given));
  // Defaults belong to the last parameters and see the ones before.
  const size_t required = count - definition.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    if (given[i]) continue;
    Value value = Value::Undefined(
        absl::StrFormat("parameter '%s' was not provided", definition.parameters[i]));
    if (i >= required) {
      SPIN_ASSIGN_OR_RETURN(value, Evaluate(*definition.defaults[i - required], scope));
    }
    scope->Set(definition.parameters[i], std::move(value));
  }
  SPIN_ASSIGN_OR_RETURN(std::string text, Capture(definition.body, scope));
  return context_.NewString(std::move(text));
}

}  // namespace spin::jinja
