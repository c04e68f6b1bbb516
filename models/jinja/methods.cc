#include "models/jinja/methods.h"

#include <algorithm>
#include <initializer_list>

#include "common/check.h"
#include "models/jinja/objects.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/string_methods.h"

namespace spin::jinja {

namespace {

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool IsDictMethod(std::string_view name) {
  return IsOneOf(name, {"get", "items", "keys", "values", "copy"});
}

bool IsListMethod(std::string_view name) {
  return IsOneOf(name, {"index", "count"});
}

bool IsLoopMethod(std::string_view name) {
  return IsOneOf(name, {"cycle", "changed"});
}

absl::StatusOr<Value> CallDict(Context& context, const Value& self, std::string_view name,
                               const Arguments& arguments) {
  const Dict& dict = self.map();
  if (name == "get") {
    SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                          BoundArguments::Bind("get", arguments, {"key", "default"}, 1));
    const Value* found = Dict::IsKey(bound.at(0)) ? dict.Find(bound.at(0)) : nullptr;
    if (found != nullptr) return *found;
    return bound.has(1) ? bound.at(1) : Value::None();
  }
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}).status());
  if (name == "copy") return self;
  ValueList items;
  for (const Dict::Entry& entry : dict.entries()) {
    if (name == "keys") {
      items.push_back(entry.key);
    } else if (name == "values") {
      items.push_back(entry.value);
    } else {
      items.push_back(Value::Tuple({entry.key, entry.value}));
    }
  }
  const SequenceType type = name == "keys"     ? SequenceType::kDictKeys
                            : name == "values" ? SequenceType::kDictValues
                                               : SequenceType::kDictItems;
  return context.NewSequence(type, std::move(items));
}

absl::StatusOr<Value> CallList(Context& context, const Value& self, std::string_view name,
                               const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind(name, arguments, {"value"}, 1));
  int64_t count = 0;
  for (size_t i = 0; i < self.items().size(); ++i) {
    SPIN_ASSIGN_OR_RETURN(const bool equal, Equal(context, self.items()[i], bound.at(0)));
    if (equal && name == "index") return Value::Int(static_cast<int64_t>(i));
    count += equal ? 1 : 0;
  }
  if (name == "index") return InvalidArgument("the value of 'index' is not in the list");
  return Value::Int(count);
}

absl::StatusOr<Value> CallLoop(Context& context, Loop& loop, std::string_view name,
                               const Arguments& arguments) {
  if (!arguments.keyword.empty()) return InvalidArgument("loop.%s takes no named arguments", name);
  if (name == "cycle") {
    if (arguments.positional.empty()) return InvalidArgument("loop.cycle needs arguments");
    return arguments.positional[static_cast<size_t>(loop.index0) % arguments.positional.size()];
  }
  SPIN_ASSIGN_OR_RETURN(const Value now,
                        context.NewSequence(SequenceType::kTuple, arguments.positional));
  SPIN_ASSIGN_OR_RETURN(const bool same, Equal(context, loop.last_changed, now));
  loop.last_changed = now;
  return Value::Bool(!same);
}

}  // namespace

bool IsMethod(std::string_view name) {
  return IsStringMethod(name) || IsDictMethod(name) || IsListMethod(name) || IsLoopMethod(name);
}

bool HasMethod(const Value& self, std::string_view name) {
  if (self.is_string()) return IsStringMethod(name);
  if (self.is_map()) return IsDictMethod(name);
  if (self.is_sequence()) {
    return self.sequence_type() <= SequenceType::kRange && IsListMethod(name);
  }
  return self.is_object() && self.object()->type() == ObjectType::kLoop && IsLoopMethod(name);
}

absl::StatusOr<Value> CallMethod(Context& context, const Value& self, std::string_view name,
                                 const Arguments& arguments) {
  SPIN_CHECK(HasMethod(self, name));
  if (self.is_string()) return CallStringMethod(context, self, name, arguments);
  if (self.is_map()) return CallDict(context, self, name, arguments);
  if (self.is_sequence()) return CallList(context, self, name, arguments);
  return CallLoop(context, static_cast<Loop&>(*self.object()), name, arguments);
}

}  // namespace spin::jinja
