// What a template calls, checked against what this interpreter has: the error at start that names
// the unknown.
//
// Filters, tests and tags are checked where they are parsed. A function or method may be defined
// further down (a macro, an attribute of a namespace), so calls are noted and checked at the end.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "models/jinja/ast.h"

namespace spin::jinja {

class KnownNames {
 public:
  // A name that the template itself gives a value: set, for, macro, parameter.
  void Define(std::string name) { defined_.insert(std::move(name)); }
  // An attribute that the template gives to a namespace.
  void DefineAttribute(std::string name) { attributes_.insert(std::move(name)); }

  // A call, filter or test was parsed.
  absl::Status Note(const Expression& expression);

  // Everything called is known.
  absl::Status Check() const;

 private:
  struct Use {
    std::string name;
    int line;
  };

  std::set<std::string> defined_;
  std::set<std::string> attributes_;
  std::vector<Use> functions_;
  std::vector<Use> methods_;
};

}  // namespace spin::jinja
