#include "models/jinja/operators.h"

#include <algorithm>

#include "models/jinja/objects.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

int Sign(bool less, bool greater) {
  return less ? -1 : greater ? 1 : 0;
}

absl::StatusOr<bool> MapsEqual(Context& context, const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const Dict::Entry& entry : a.entries()) {
    const Value* other = b.Find(entry.key);
    if (other == nullptr) return false;
    SPIN_ASSIGN_OR_RETURN(const bool equal, Equal(context, entry.value, *other));
    if (!equal) return false;
  }
  return true;
}

// Bounds of a slice as Python's slice.indices() computes them.
struct SliceBounds {
  int64_t start;
  int64_t stop;
  int64_t step;
};

absl::StatusOr<int64_t> Bound(const Value& value, int64_t missing, int64_t low, int64_t high,
                              int64_t length) {
  if (value.is_none() || value.is_undefined()) return missing;
  SPIN_ASSIGN_OR_RETURN(int64_t bound, ToInteger(value, "a slice bound"));
  if (bound < 0) bound += length;
  return std::clamp(bound, low, high);
}

absl::StatusOr<SliceBounds> Bounds(int64_t length, const Value& start, const Value& stop,
                                   const Value& step) {
  SliceBounds bounds = {0, 0, 1};
  if (!step.is_none() && !step.is_undefined()) {
    SPIN_ASSIGN_OR_RETURN(bounds.step, ToInteger(step, "a slice step"));
  }
  if (bounds.step == 0) return InvalidArgument("a slice step cannot be zero");
  // Longer steps reach one item too, and could overflow.
  bounds.step = std::clamp(bounds.step, -length - 1, length + 1);
  const bool forward = bounds.step > 0;
  const int64_t low = forward ? 0 : -1;
  const int64_t high = forward ? length : length - 1;
  SPIN_ASSIGN_OR_RETURN(bounds.start, Bound(start, forward ? low : high, low, high, length));
  SPIN_ASSIGN_OR_RETURN(bounds.stop, Bound(stop, forward ? high : low, low, high, length));
  return bounds;
}

template <typename Visit>
void VisitSlice(const SliceBounds& bounds, Visit visit) {
  for (int64_t i = bounds.start; bounds.step > 0 ? i < bounds.stop : i > bounds.stop;
       i += bounds.step) {
    visit(static_cast<size_t>(i));
  }
}

absl::StatusOr<Value> SliceString(Context& context, const Value& value, const Value& start,
                                  const Value& stop, const Value& step) {
  const std::vector<std::string_view> characters = Characters(value.string_value());
  SPIN_ASSIGN_OR_RETURN(const SliceBounds bounds,
                        Bounds(static_cast<int64_t>(characters.size()), start, stop, step));
  std::string out;
  VisitSlice(bounds, [&](size_t i) { out.append(characters[i]); });
  return context.NewString(std::move(out));
}

}  // namespace

absl::Status UndefinedError(const Value& value) {
  return InvalidArgument("%s", value.undefined_message());
}

bool Truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.bool_value();
    case Kind::kInt:
      return value.int_value() != 0;
    case Kind::kDouble:
      return value.double_value() != 0;
    case Kind::kString:
      return !value.string_value().empty();
    case Kind::kSequence:
      return value.is_sequence(SequenceType::kGenerator) || !value.items().empty();
    case Kind::kMap:
      return !value.map().empty();
    case Kind::kObject:
      return true;
  }
  return false;
}

absl::StatusOr<bool> Equal(Context& context, const Value& a, const Value& b) {
  SPIN_RETURN_IF_ERROR(context.Step());
  if (a.kind() == b.kind() && a.SameAs(b)) {
    return !a.is_double() || a.double_value() == a.double_value();
  }
  if (a.is_map() && b.is_map()) return MapsEqual(context, a.map(), b.map());
  if (!a.is_sequence() || !b.is_sequence()) return ScalarsEqual(a, b);
  const SequenceType type = a.sequence_type();
  if (type != b.sequence_type() || type == SequenceType::kGenerator ||
      type == SequenceType::kDictValues || a.items().size() != b.items().size()) {
    return false;
  }
  for (size_t i = 0; i < a.items().size(); ++i) {
    SPIN_ASSIGN_OR_RETURN(const bool equal, Equal(context, a.items()[i], b.items()[i]));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<int> Compare(Context& context, const Value& a, const Value& b) {
  SPIN_RETURN_IF_ERROR(context.Step());
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_integral() && b.is_integral()) {
    return Sign(a.integral() < b.integral(), a.integral() > b.integral());
  }
  if (a.is_number() && b.is_number()) {
    return Sign(a.number() < b.number(), a.number() > b.number());
  }
  // UTF-8 keeps the order of code points.
  if (a.is_string() && b.is_string()) return a.string_value().compare(b.string_value());
  const bool lists = a.is_sequence() && b.is_sequence() && a.sequence_type() == b.sequence_type() &&
                     a.sequence_type() <= SequenceType::kTuple;
  if (!lists) return InvalidArgument("%s and %s have no order", TypeName(a), TypeName(b));
  const size_t common = std::min(a.items().size(), b.items().size());
  for (size_t i = 0; i < common; ++i) {
    SPIN_ASSIGN_OR_RETURN(const bool equal, Equal(context, a.items()[i], b.items()[i]));
    if (!equal) return Compare(context, a.items()[i], b.items()[i]);
  }
  return Sign(a.items().size() < b.items().size(), a.items().size() > b.items().size());
}

absl::StatusOr<bool> Contains(Context& context, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      return InvalidArgument("'in' of a string needs a string, not %s", TypeName(item));
    }
    SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(container.string_value().size() / 64)));
    return container.string_value().find(item.string_value()) != std::string::npos;
  }
  if (container.is_map()) {
    if (item.is_sequence(SequenceType::kList) || item.is_map()) {
      return InvalidArgument("%s cannot be a key", TypeName(item));
    }
    return Dict::IsKey(item) && container.map().Find(item) != nullptr;
  }
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, container));
  for (const Value& candidate : items) {
    SPIN_ASSIGN_OR_RETURN(const bool equal, Equal(context, candidate, item));
    if (equal) return true;
  }
  return false;
}

absl::StatusOr<int64_t> Length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) return static_cast<int64_t>(CharacterCount(value.string_value()));
  if (value.is_map()) return static_cast<int64_t>(value.map().size());
  if (value.is_sequence() && !value.is_sequence(SequenceType::kGenerator)) {
    return static_cast<int64_t>(value.items().size());
  }
  if (const auto loop = ObjectAs<Loop>(value, ObjectType::kLoop)) {
    return static_cast<int64_t>(loop->items.size());
  }
  return InvalidArgument("%s has no length", TypeName(value));
}

absl::StatusOr<ValueList> Iterate(Context& context, const Value& value) {
  ValueList items;
  switch (value.kind()) {
    case Kind::kUndefined:
      break;
    case Kind::kString:
      for (const std::string_view c : Characters(value.string_value())) {
        SPIN_RETURN_IF_ERROR(context.Step());
        items.push_back(Value::String(std::string(c)));
      }
      break;
    case Kind::kMap:
      for (const Dict::Entry& entry : value.map().entries()) items.push_back(entry.key);
      break;
    case Kind::kSequence:
      if (!value.is_sequence(SequenceType::kGenerator) || value.TakeGenerator())
        items = value.items();
      break;
    default:
      return InvalidArgument("%s cannot be iterated over", TypeName(value));
  }
  SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(items.size())));
  return items;
}

absl::StatusOr<int64_t> ToInteger(const Value& value, std::string_view what) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_integral()) return value.integral();
  return InvalidArgument("%s must be an integer, not %s", what, TypeName(value));
}

Value Item(const Value& value, const Value& key) {
  if (value.is_map()) {
    const Value* found = Dict::IsKey(key) ? value.map().Find(key) : nullptr;
    return found == nullptr ? Value() : *found;
  }
  if (!key.is_integral()) return Value();
  int64_t index = key.integral();
  if (value.is_string()) {
    const std::vector<std::string_view> characters = Characters(value.string_value());
    const int64_t size = static_cast<int64_t>(characters.size());
    if (index < 0) index += size;
    if (index < 0 || index >= size) return Value();
    return Value::String(std::string(characters[static_cast<size_t>(index)]));
  }
  if (!value.is_sequence() || value.sequence_type() > SequenceType::kRange) return Value();
  const int64_t size = static_cast<int64_t>(value.items().size());
  if (index < 0) index += size;
  return index < 0 || index >= size ? Value() : value.items()[static_cast<size_t>(index)];
}

absl::StatusOr<Value> Slice(Context& context, const Value& value, const Value& start,
                            const Value& stop, const Value& step) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_string()) return SliceString(context, value, start, stop, step);
  if (!value.is_sequence() || value.sequence_type() > SequenceType::kRange) {
    return InvalidArgument("%s cannot be sliced", TypeName(value));
  }
  SPIN_ASSIGN_OR_RETURN(const SliceBounds bounds,
                        Bounds(static_cast<int64_t>(value.items().size()), start, stop, step));
  ValueList out;
  VisitSlice(bounds, [&](size_t i) { out.push_back(value.items()[i]); });
  if (value.is_sequence(SequenceType::kTuple)) {
    return context.NewSequence(SequenceType::kTuple, std::move(out));
  }
  return context.NewList(std::move(out));
}

}  // namespace spin::jinja
