// The variables of one block: a for body, a macro call, a with block; the outermost is the
// template's.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/value.h"

namespace spin::jinja {

struct Scope {
  explicit Scope(std::shared_ptr<Scope> outer) : outer(std::move(outer)) {}

  // Null when neither this scope nor one around it has `name`.
  const Value* Find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->outer.get()) {
      for (const auto& [key, value] : scope->variables) {
        if (key == name) return &value;
      }
    }
    return nullptr;
  }

  // In this scope, whatever scopes around it have.
  void Set(std::string_view name, Value value) {
    for (auto& [key, old] : variables) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }

  std::shared_ptr<Scope> outer;
  std::vector<std::pair<std::string_view, Value>> variables;  // few; names live in the syntax tree
};

}  // namespace spin::jinja
