#include "models/jinja/tests_builtin.h"

#include <map>

#include "models/jinja/filters.h"
#include "models/jinja/objects.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

using Predicate = bool (*)(const Value&);
using Relation = absl::StatusOr<bool> (*)(Context&, const Value&, const Value&);

bool IsIterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_sequence() || value.is_map();
}

bool HasSequenceProtocol(const Value& value) {
  if (value.is_sequence()) return value.sequence_type() <= SequenceType::kRange;
  return IsIterable(value);
}

bool IsCallable(const Value& value) {
  if (value.is_undefined()) return true;  // calling it is what raises, as in Jinja
  return value.is_object() && value.object()->type() != ObjectType::kNamespace;
}

// str.islower() and str.isupper(): cased letters, all of one case.
bool AllCase(const Value& value, bool upper) {
  if (!value.is_string()) return false;
  bool any = false;
  for (const std::string_view c : Characters(value.string_value())) {
    const int32_t code_point = CodePoint(c);
    if (upper ? IsLower(code_point) : IsUpper(code_point)) return false;
    any |= upper ? IsUpper(code_point) : IsLower(code_point);
  }
  return any;
}

const std::map<std::string_view, Predicate>& Predicates() {
  static const auto* const kPredicates = new std::map<std::string_view, Predicate>{
      {"defined", [](const Value& v) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v) { return v.is_undefined(); }},
      {"none", [](const Value& v) { return v.is_none(); }},
      {"boolean", [](const Value& v) { return v.is_bool(); }},
      {"true", [](const Value& v) { return v.is_true(); }},
      {"false", [](const Value& v) { return v.is_bool() && !v.bool_value(); }},
      {"integer", [](const Value& v) { return v.is_int(); }},
      {"float", [](const Value& v) { return v.is_double(); }},
      {"number", [](const Value& v) { return v.is_number(); }},
      {"string", [](const Value& v) { return v.is_string(); }},
      {"mapping", [](const Value& v) { return v.is_map(); }},
      {"iterable", IsIterable},
      {"sequence", HasSequenceProtocol},
      {"callable", IsCallable},
      {"lower", [](const Value& v) { return AllCase(v, false); }},
      {"upper", [](const Value& v) { return AllCase(v, true); }},
      {"filter", [](const Value& v) { return v.is_string() && IsFilter(v.string_value()); }},
      {"test", [](const Value& v) { return v.is_string() && IsTest(v.string_value()); }},
  };
  return *kPredicates;
}

absl::StatusOr<bool> Remainder(Context& context, const Value& value, const Value& divisor,
                               int64_t want) {
  SPIN_ASSIGN_OR_RETURN(const Value rest, Arithmetic(context, "%", value, divisor));
  return Equal(context, rest, Value::Int(want));
}

// a < b, a <= b and so on through the sign of the comparison.
template <bool (*kHolds)(int)>
absl::StatusOr<bool> Ordered(Context& context, const Value& a, const Value& b) {
  SPIN_ASSIGN_OR_RETURN(const int order, Compare(context, a, b));
  return kHolds(order);
}

bool Less(int order) {
  return order < 0;
}
bool LessEqual(int order) {
  return order <= 0;
}
bool Greater(int order) {
  return order > 0;
}
bool GreaterEqual(int order) {
  return order >= 0;
}

absl::StatusOr<bool> NotEqual(Context& context, const Value& a, const Value& b) {
  SPIN_ASSIGN_OR_RETURN(const bool equal, Equal(context, a, b));
  return !equal;
}

absl::StatusOr<bool> Same(Context&, const Value& a, const Value& b) {
  return a.SameAs(b);
}

absl::StatusOr<bool> DivisibleBy(Context& context, const Value& a, const Value& b) {
  return Remainder(context, a, b, 0);
}

absl::StatusOr<bool> In(Context& context, const Value& item, const Value& container) {
  return Contains(context, container, item);
}

const std::map<std::string_view, Relation>& Relations() {
  static const auto* const kRelations = new std::map<std::string_view, Relation>{
      {"eq", Equal},
      {"equalto", Equal},
      {"==", Equal},
      {"ne", NotEqual},
      {"!=", NotEqual},
      {"lt", Ordered<Less>},
      {"lessthan", Ordered<Less>},
      {"<", Ordered<Less>},
      {"le", Ordered<LessEqual>},
      {"<=", Ordered<LessEqual>},
      {"gt", Ordered<Greater>},
      {"greaterthan", Ordered<Greater>},
      {">", Ordered<Greater>},
      {"ge", Ordered<GreaterEqual>},
      {">=", Ordered<GreaterEqual>},
      {"in", In},
      {"sameas", Same},
      {"divisibleby", DivisibleBy},
  };
  return *kRelations;
}

}  // namespace

bool IsTest(std::string_view name) {
  return name == "odd" || name == "even" || Predicates().contains(name) ||
         Relations().contains(name);
}

absl::StatusOr<bool> CallTest(Context& context, std::string_view name, const Value& value,
                              const Arguments& arguments) {
  const std::string callee = absl::StrFormat("the test '%s'", name);
  if (const auto it = Relations().find(name); it != Relations().end()) {
    SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                          BoundArguments::Bind(callee, arguments, {"other"}, 1));
    return it->second(context, value, bound.at(0));
  }
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind(callee, arguments, {}).status());
  if (name == "odd") return Remainder(context, value, Value::Int(2), 1);
  if (name == "even") return Remainder(context, value, Value::Int(2), 0);
  const auto it = Predicates().find(name);
  if (it == Predicates().end()) return InvalidArgument("unknown test '%s'", name);
  return it->second(value);
}

}  // namespace spin::jinja
