// The values that only the interpreter makes. Templates hold them as Kind::kObject.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "models/jinja/value.h"

namespace spin::jinja {

struct MacroStatement;
struct Scope;

enum class ObjectType { kNamespace, kFunction, kMethod, kMacro, kLoop };

class Object {
 public:
  explicit Object(ObjectType type) : type_(type) {}
  virtual ~Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  ObjectType type() const { return type_; }

  // Lets go of everything that may lead back to this object.
  virtual void Clear() {}

 private:
  const ObjectType type_;
};

// namespace(...): the only value that a template can change.
struct Namespace final : Object {
  Namespace() : Object(ObjectType::kNamespace) {}
  void Clear() override { attributes = Dict(); }

  Dict attributes;
};

// A global function by its name, as `range`.
struct Function final : Object {
  explicit Function(std::string name) : Object(ObjectType::kFunction), name(std::move(name)) {}

  std::string name;
};

// `self.name`, not called yet.
struct Method final : Object {
  Method(Value self, std::string name)
      : Object(ObjectType::kMethod), self(std::move(self)), name(std::move(name)) {}
  void Clear() override { self = Value(); }

  Value self;
  std::string name;
};

// A macro, or the body of a call block, with the scope it was written in.
struct Macro final : Object {
  Macro(const MacroStatement* definition, std::shared_ptr<Scope> scope)
      : Object(ObjectType::kMacro), definition(definition), scope(std::move(scope)) {}
  void Clear() override { scope.reset(); }

  const MacroStatement* definition;  // owned by the template
  std::shared_ptr<Scope> scope;
};

// `loop` inside a for block.
struct Loop final : Object {
  explicit Loop(ValueList items) : Object(ObjectType::kLoop), items(std::move(items)) {}
  void Clear() override { last_changed = Value(); }

  ValueList items;
  int64_t index0 = 0;
  int64_t depth0 = 0;
  Value last_changed;  // the arguments of the last loop.changed(...), undefined before
};

// The object of `value` when it has the type of T, else null.
template <typename T>
std::shared_ptr<T> ObjectAs(const Value& value, ObjectType type) {
  if (!value.is_object() || value.object()->type() != type) return nullptr;
  return std::static_pointer_cast<T>(value.object());
}

}  // namespace spin::jinja
