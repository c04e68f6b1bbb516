#include "models/jinja/functions.h"

#include <ctime>

#include "common/check.h"
#include "models/jinja/objects.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"

namespace spin::jinja {

namespace {

constexpr size_t kMaxFormatBytes = 256;  // of strftime_now's argument

absl::StatusOr<Value> Range(Context& context, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("range", arguments, {"start", "stop", "step"}, 1));
  int64_t start = 0, stop = 0, step = 1;
  SPIN_ASSIGN_OR_RETURN(stop, ToInteger(bound.at(0), "range"));
  if (bound.has(1)) {
    start = stop;
    SPIN_ASSIGN_OR_RETURN(stop, ToInteger(bound.at(1), "range"));
  }
  if (bound.has(2)) {
    SPIN_ASSIGN_OR_RETURN(step, ToInteger(bound.at(2), "range"));
  }
  if (step == 0) return InvalidArgument("the step of range cannot be zero");
  ValueList items;
  for (__int128 i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) {
      return InvalidArgument("range makes more than %d numbers", kMaxRange);
    }
    items.push_back(Value::Int(static_cast<int64_t>(i)));
  }
  std::string repr = step == 1 ? absl::StrFormat("range(%d, %d)", start, stop)
                               : absl::StrFormat("range(%d, %d, %d)", start, stop, step);
  return context.NewSequence(SequenceType::kRange, std::move(items), std::move(repr));
}

// dict(mapping or pairs, key=value, ...), also the arguments of namespace.
absl::StatusOr<Dict> MakeDict(Context& context, std::string_view callee,
                              const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    return InvalidArgument("%s takes at most 1 argument without a name", callee);
  }
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is_map()) {
      SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(source.map().size())));
      dict = source.map();
    } else {
      SPIN_ASSIGN_OR_RETURN(const ValueList pairs, Iterate(context, source));
      for (const Value& item : pairs) {
        SPIN_ASSIGN_OR_RETURN(const ValueList pair, Iterate(context, item));
        if (pair.size() != 2 || !Dict::IsKey(pair[0])) {
          return InvalidArgument("%s needs pairs of a key and a value", callee);
        }
        dict.Set(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) dict.Set(name, value);
  return dict;
}

absl::StatusOr<Value> MakeNamespace(Context& context, const Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  context.objects.push_back(space);
  SPIN_ASSIGN_OR_RETURN(space->attributes, MakeDict(context, "namespace", arguments));
  for (const Dict::Entry& entry : space->attributes.entries()) {
    if (entry.key.is_string() && entry.key.string_value().substr(0, 1) == "_") {
      return InvalidArgument("a namespace cannot have the attribute '%s': it starts with '_'",
                             entry.key.string_value());
    }
  }
  return Value::FromObject(std::move(space));
}

absl::StatusOr<Value> RaiseException(Context& context, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("raise_exception", arguments, {"message"}, 1));
  SPIN_ASSIGN_OR_RETURN(context.raised, Str(context, bound.at(0)));
  return InvalidArgument("%s", *context.raised);
}

absl::StatusOr<Value> StrftimeNow(Context& context, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("strftime_now", arguments, {"format"}, 1));
  SPIN_ASSIGN_OR_RETURN(const std::string format, bound.String(0, ""));
  if (format.size() > kMaxFormatBytes)
    return InvalidArgument("the format of strftime_now is too long");
  if (format.empty()) return Value::String("");
  const std::time_t now = static_cast<std::time_t>(context.now_seconds());
  std::tm local = {};
  if (localtime_r(&now, &local) == nullptr)
    return InvalidArgument("strftime_now has no valid time");
  char buffer[16 * kMaxFormatBytes];
  const size_t bytes = std::strftime(buffer, sizeof(buffer), format.c_str(), &local);
  return context.NewString(std::string(buffer, bytes));
}

}  // namespace

bool IsFunction(std::string_view name) {
  return name == "range" || name == "dict" || name == "namespace" || name == "raise_exception" ||
         name == "strftime_now";
}

absl::StatusOr<Value> CallFunction(Context& context, std::string_view name,
                                   const Arguments& arguments) {
  SPIN_CHECK(IsFunction(name));
  if (name == "range") return Range(context, arguments);
  if (name == "namespace") return MakeNamespace(context, arguments);
  if (name == "raise_exception") return RaiseException(context, arguments);
  if (name == "strftime_now") return StrftimeNow(context, arguments);
  SPIN_ASSIGN_OR_RETURN(Dict dict, MakeDict(context, "dict", arguments));
  return Context::Bounded(Value::Map(std::move(dict)));
}

}  // namespace spin::jinja
