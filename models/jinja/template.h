// A parsed Jinja template. Immutable: any thread may call Render at once.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"
#include "models/jinja/ast.h"
#include "models/jinja/context.h"
#include "models/jinja/value.h"

namespace spin::jinja {

class Template {
 public:
  // The environment is that of transformers' chat templates: trim_blocks, lstrip_blocks, loop
  // controls, raise_exception, strftime_now, {% generation %}. Unknown tags, filters, tests,
  // functions and methods are errors, "line N: ...".
  static absl::StatusOr<Template> Parse(std::string_view source);

  // `variables` is a mapping. `now_seconds` (since 1970) feeds strftime_now. InvalidArgument on any
  // error; of raise_exception with the template's own words and nothing else.
  absl::StatusOr<std::string> Render(const Value& variables, const NowSeconds& now_seconds) const;

 private:
  explicit Template(Body body);

  std::shared_ptr<const Body> body_;
};

}  // namespace spin::jinja
