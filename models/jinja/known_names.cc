#include "models/jinja/known_names.h"

#include "models/jinja/filters.h"
#include "models/jinja/functions.h"
#include "models/jinja/methods.h"
#include "models/jinja/tests_builtin.h"
#include "models/jinja/token_stream.h"

namespace spin::jinja {

namespace {

absl::Status CheckFilter(std::string_view name, int line) {
  if (IsFilter(name)) return absl::OkStatus();
  return TokenStream::FailAt(line, absl::StrFormat("unknown filter '%s'", name));
}

absl::Status CheckTest(std::string_view name, int line) {
  if (IsTest(name)) return absl::OkStatus();
  return TokenStream::FailAt(line, absl::StrFormat("unknown test '%s'", name));
}

// The filter or test that map, select, ... name by a string constant: argument `index` behind the
// filtered value.
const std::string* NamedArgument(const Expression& filter, size_t index) {
  if (filter.operands.size() <= index + 1) return nullptr;
  const Expression& argument = *filter.operands[index + 1];
  const bool is_string = argument.kind == ExpressionKind::kConstant && argument.value.is_string();
  return is_string ? &argument.value.string_value() : nullptr;
}

absl::Status CheckNamedArgument(const Expression& filter) {
  const std::string& name = filter.name;
  if (name == "map") {
    if (const std::string* inner = NamedArgument(filter, 0))
      return CheckFilter(*inner, filter.line);
  } else if (name == "select" || name == "reject") {
    if (const std::string* inner = NamedArgument(filter, 0)) return CheckTest(*inner, filter.line);
  } else if (name == "selectattr" || name == "rejectattr") {
    if (const std::string* inner = NamedArgument(filter, 1)) return CheckTest(*inner, filter.line);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status KnownNames::Note(const Expression& expression) {
  switch (expression.kind) {
    case ExpressionKind::kFilter:
      SPIN_RETURN_IF_ERROR(CheckFilter(expression.name, expression.line));
      return CheckNamedArgument(expression);
    case ExpressionKind::kTest:
      return CheckTest(expression.name, expression.line);
    case ExpressionKind::kCall: {
      const Expression& callee = *expression.operands[0];
      if (callee.kind == ExpressionKind::kName) {
        functions_.push_back({callee.name, callee.line});
        // namespace(f=macro) makes `f` callable as an attribute.
        if (callee.name == "namespace") {
          for (const auto& [name, value] : expression.keywords) DefineAttribute(name);
        }
      } else if (callee.kind == ExpressionKind::kAttribute) {
        methods_.push_back({callee.name, callee.line});
      }
      return absl::OkStatus();
    }
    default:
      return absl::OkStatus();
  }
}

absl::Status KnownNames::Check() const {
  for (const Use& use : functions_) {
    if (IsFunction(use.name) || defined_.contains(use.name)) continue;
    return TokenStream::FailAt(use.line, absl::StrFormat("unknown function '%s'", use.name));
  }
  for (const Use& use : methods_) {
    if (IsMethod(use.name) || attributes_.contains(use.name)) continue;
    return TokenStream::FailAt(use.line, absl::StrFormat("unknown method '%s'", use.name));
  }
  return absl::OkStatus();
}

}  // namespace spin::jinja
