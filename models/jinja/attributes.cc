#include "models/jinja/attributes.h"

#include <memory>
#include <optional>

#include "models/jinja/ast.h"
#include "models/jinja/methods.h"
#include "models/jinja/objects.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"

namespace spin::jinja {

namespace {

// loop.index and its kin.
std::optional<Value> LoopAttribute(const Loop& loop, std::string_view name) {
  const int64_t size = static_cast<int64_t>(loop.items.size());
  const int64_t i = loop.index0;
  if (name == "index") return Value::Int(i + 1);
  if (name == "index0") return Value::Int(i);
  if (name == "revindex") return Value::Int(size - i);
  if (name == "revindex0") return Value::Int(size - i - 1);
  if (name == "first") return Value::Bool(i == 0);
  if (name == "last") return Value::Bool(i + 1 == size);
  if (name == "length") return Value::Int(size);
  if (name == "depth") return Value::Int(loop.depth0 + 1);
  if (name == "depth0") return Value::Int(loop.depth0);
  if (name == "previtem") {
    return i == 0 ? Value::Undefined("there is no previous item")
                  : loop.items[static_cast<size_t>(i - 1)];
  }
  if (name == "nextitem") {
    return i + 1 >= size ? Value::Undefined("there is no next item")
                         : loop.items[static_cast<size_t>(i + 1)];
  }
  return std::nullopt;
}

std::optional<Value> ObjectAttribute(const Object& object, const std::string& name) {
  switch (object.type()) {
    case ObjectType::kNamespace: {
      const Value* found = static_cast<const Namespace&>(object).attributes.Find(name);
      return found == nullptr ? std::nullopt : std::optional<Value>(*found);
    }
    case ObjectType::kLoop:
      return LoopAttribute(static_cast<const Loop&>(object), name);
    case ObjectType::kMacro:
      if (name == "name") return Value::String(static_cast<const Macro&>(object).definition->name);
      return std::nullopt;
    case ObjectType::kFunction:
    case ObjectType::kMethod:
      return std::nullopt;
  }
  return std::nullopt;
}

// What Python's getattr finds.
std::optional<Value> PythonAttribute(const Value& value, const std::string& name) {
  if (HasMethod(value, name)) return Value::FromObject(std::make_shared<Method>(value, name));
  if (value.is_object()) return ObjectAttribute(*value.object(), name);
  return std::nullopt;
}

Value Missing(const Value& value, const Value& key) {
  if (key.is_string()) {
    return Value::Undefined(
        absl::StrFormat("'%s' has no attribute '%s'", TypeName(value), key.string_value()));
  }
  if (key.is_int()) {
    return Value::Undefined(
        absl::StrFormat("%s has no element %d", TypeName(value), key.int_value()));
  }
  return Value::Undefined(absl::StrFormat("%s has no such element", TypeName(value)));
}

}  // namespace

absl::StatusOr<Value> GetAttribute(Context& context, const Value& value, const std::string& name) {
  SPIN_RETURN_IF_ERROR(context.Step());
  if (value.is_undefined()) return UndefinedError(value);
  if (std::optional<Value> found = PythonAttribute(value, name)) return *std::move(found);
  if (value.is_map()) {
    if (const Value* item = value.map().Find(name)) return *item;
  }
  return Missing(value, Value::String(name));
}

absl::StatusOr<Value> GetItem(const Value& value, const Value& key) {
  if (value.is_undefined()) return UndefinedError(value);
  // Only a key that is there counts, even when its value is undefined: the copy would be undefined
  // too.
  Value item = Item(value, key);
  if (!item.is_undefined()) return item;
  if (key.is_string()) {
    if (std::optional<Value> found = PythonAttribute(value, key.string_value()))
      return *std::move(found);
  }
  return Missing(value, key);
}

}  // namespace spin::jinja
