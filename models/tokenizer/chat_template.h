// A model's own chat template (Jinja), rendered exactly as transformers' apply_chat_template does.
//
// Immutable after Parse: any thread may call Render at once. Rendering is bounded (steps, depth,
// output bytes), so that no template and no message can hang or exhaust the server.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"
#include "models/jinja/value.h"

namespace spin {

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  // `source` is the template. Unknown tags, filters, tests and functions are errors here, at start,
  // that name the thing and its line. `now_seconds` of strftime_now is injected for tests; null
  // means the machine's clock.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(
      std::string_view source, std::function<int64_t()> now_seconds = nullptr);

  // `variables` is a mapping: messages, tools, add_generation_prompt, bos_token, eos_token,
  // chat_template_kwargs... InvalidArgument with the template's own words when it calls
  // raise_exception.
  virtual absl::StatusOr<std::string> Render(const jinja::Value& variables) const = 0;
};

}  // namespace spin
