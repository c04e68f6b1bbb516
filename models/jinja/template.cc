#include "models/jinja/template.h"

#include <utility>

#include "models/jinja/evaluator.h"
#include "models/jinja/limits.h"
#include "models/jinja/parser.h"

namespace spin::jinja {

Template::Template(Body body) : body_(std::make_shared<const Body>(std::move(body))) {}

absl::StatusOr<Template> Template::Parse(std::string_view source) {
  SPIN_ASSIGN_OR_RETURN(Body body, ParseTemplate(source));
  return Template(std::move(body));
}

absl::StatusOr<std::string> Template::Render(const Value& variables,
                                             const NowSeconds& now_seconds) const {
  if (!variables.is_map()) return InvalidArgument("the variables of a template are a mapping");
  if (variables.depth() > kMaxValueDepth) {
    return InvalidArgument("the variables of a template are nested more than %d levels deep",
                           kMaxValueDepth);
  }
  return Evaluator(variables, now_seconds).Run(*body_);
}

}  // namespace spin::jinja
