// Filters that take lists and mappings apart.
#include <algorithm>
#include <charconv>
#include <iterator>

#include "models/jinja/attributes.h"
#include "models/jinja/filter_functions.h"
#include "models/jinja/filters.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/string_methods.h"
#include "models/jinja/tests_builtin.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

using Result = absl::StatusOr<Value>;

Result LengthOf(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("length", arguments, {}).status());
  if (value.is_string()) {
    SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(value.string_value().size() / 64)));
  }
  SPIN_ASSIGN_OR_RETURN(const int64_t length, Length(value));
  return Value::Int(length);
}

Result First(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("first", arguments, {}).status());
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
  return items.empty() ? Value::Undefined("the sequence of 'first' is empty") : items.front();
}

Result Last(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("last", arguments, {}).status());
  if (value.is_sequence(SequenceType::kGenerator)) {
    return InvalidArgument("a generator has no last item; make it a list first");
  }
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
  return items.empty() ? Value::Undefined("the sequence of 'last' is empty") : items.back();
}

Result ToList(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("list", arguments, {}).status());
  SPIN_ASSIGN_OR_RETURN(ValueList items, Iterate(context, value));
  return context.NewList(std::move(items));
}

Result Reverse(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("reverse", arguments, {}).status());
  if (value.is_string()) {
    return Slice(context, value, Value::None(), Value::None(), Value::Int(-1));
  }
  SPIN_ASSIGN_OR_RETURN(ValueList items, Iterate(context, value));
  std::reverse(items.begin(), items.end());
  return context.NewSequence(SequenceType::kGenerator, std::move(items));
}

Result Items(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("items", arguments, {}).status());
  ValueList items;
  if (value.is_map()) {
    for (const Dict::Entry& entry : value.map().entries()) {
      items.push_back(Value::Tuple({entry.key, entry.value}));
    }
  } else if (!value.is_undefined()) {
    return InvalidArgument("items needs a mapping, not %s", TypeName(value));
  }
  return context.NewSequence(SequenceType::kGenerator, std::move(items));
}

Result Join(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("join", arguments, {"d", "attribute"}));
  SPIN_ASSIGN_OR_RETURN(ValueList items, Iterate(context, value));
  if (bound.has(1) && !bound.at(1).is_none()) {
    for (Value& item : items) {
      SPIN_ASSIGN_OR_RETURN(item, AttributePath(item, bound.at(1)));
    }
  }
  std::string separator;
  if (bound.has(0)) {
    SPIN_ASSIGN_OR_RETURN(separator, Str(context, bound.at(0)));
  }
  return JoinText(context, separator, items, /*convert=*/true);
}

// map(attribute="x", default=...) or map("filter", arguments...).
Result Map(Context& context, const Value& value, const Arguments& arguments) {
  ValueList items;
  if (Truthy(value)) {
    SPIN_ASSIGN_OR_RETURN(items, Iterate(context, value));
  }
  const Value* attribute = arguments.FindKeyword("attribute");
  if (arguments.positional.empty() && attribute != nullptr) {
    SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                          BoundArguments::Bind("map", arguments, {"attribute", "default"}));
    for (Value& item : items) {
      SPIN_ASSIGN_OR_RETURN(item, AttributePath(item, bound.at(0)));
      if (item.is_undefined() && bound.has(1) && !bound.at(1).is_none()) item = bound.at(1);
    }
    return context.NewSequence(SequenceType::kGenerator, std::move(items));
  }
  if (arguments.positional.empty() || !arguments.positional[0].is_string()) {
    return InvalidArgument("map needs the name of a filter or an attribute");
  }
  Arguments inner = arguments;
  inner.positional.erase(inner.positional.begin());
  for (Value& item : items) {
    SPIN_ASSIGN_OR_RETURN(item,
                          CallFilter(context, arguments.positional[0].string_value(), item, inner));
  }
  return context.NewSequence(SequenceType::kGenerator, std::move(items));
}

// select, reject (kAttribute false) and selectattr, rejectattr.
template <bool kAttribute, bool kKeep>
Result Choose(Context& context, const Value& value, const Arguments& arguments) {
  Arguments rest = arguments;
  Value attribute;
  if (kAttribute) {
    if (rest.positional.empty())
      return InvalidArgument("selectattr and rejectattr need an attribute");
    attribute = rest.positional[0];
    rest.positional.erase(rest.positional.begin());
  }
  std::string test;  // none: the value's truth
  if (!rest.positional.empty()) {
    if (!rest.positional[0].is_string()) return InvalidArgument("the name of a test is a string");
    test = rest.positional[0].string_value();
    rest.positional.erase(rest.positional.begin());
  }
  ValueList kept;
  if (Truthy(value)) {
    SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
    for (const Value& item : items) {
      Value subject = item;
      if (kAttribute) {
        SPIN_ASSIGN_OR_RETURN(subject, AttributePath(item, attribute));
      }
      bool holds = Truthy(subject);
      if (!test.empty()) {
        SPIN_ASSIGN_OR_RETURN(holds, CallTest(context, test, subject, rest));
      }
      if (holds == kKeep) kept.push_back(item);
    }
  }
  return context.NewSequence(SequenceType::kGenerator, std::move(kept));
}

Result Batch(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("batch", arguments, {"linecount", "fill_with"}, 1));
  SPIN_ASSIGN_OR_RETURN(const int64_t size, ToInteger(bound.at(0), "linecount"));
  if (size < 1 || size > kMaxRange)
    return InvalidArgument("the line count of batch is 1 to %d", kMaxRange);
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
  ValueList batches, batch;
  for (const Value& item : items) {
    batch.push_back(item);
    if (static_cast<int64_t>(batch.size()) == size) {
      batches.push_back(Value::List(std::exchange(batch, {})));
    }
  }
  if (!batch.empty()) {
    const bool fill = bound.has(1) && !bound.at(1).is_none();
    if (fill) batch.resize(static_cast<size_t>(size), bound.at(1));
    batches.push_back(Value::List(std::move(batch)));
  }
  return context.NewSequence(SequenceType::kGenerator, std::move(batches));
}

Result Attr(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("attr", arguments, {"name"}, 1));
  SPIN_ASSIGN_OR_RETURN(const std::string name, bound.String(0, ""));
  // Attributes only: the items of a mapping are not among them.
  if (value.is_map()) {
    return Value::Undefined(absl::StrFormat("'%s' has no attribute '%s'", TypeName(value), name));
  }
  return GetAttribute(context, value, name);
}

}  // namespace

absl::StatusOr<Value> AttributePath(const Value& value, const Value& attribute) {
  if (!attribute.is_string()) return GetItem(value, attribute);
  Value current = value;
  std::string_view path = attribute.string_value();
  while (true) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    int64_t index = 0;
    const auto end = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && part[0] != '-' && end.ec == std::errc() &&
                          end.ptr == part.data() + part.size();
    SPIN_ASSIGN_OR_RETURN(
        current, GetItem(current, is_index ? Value::Int(index) : Value::String(std::string(part))));
    if (dot == std::string_view::npos) return current;
    path.remove_prefix(dot + 1);
  }
}

const NamedFilter* SequenceFilters(size_t* count) {
  static constexpr NamedFilter kFilters[] = {
      {"attr", Attr},
      {"batch", Batch},
      {"count", LengthOf},
      {"first", First},
      {"items", Items},
      {"join", Join},
      {"last", Last},
      {"length", LengthOf},
      {"list", ToList},
      {"map", Map},
      {"reject", Choose<false, false>},
      {"rejectattr", Choose<true, false>},
      {"reverse", Reverse},
      {"select", Choose<false, true>},
      {"selectattr", Choose<true, true>},
  };
  *count = std::size(kFilters);
  return kFilters;
}

}  // namespace spin::jinja
