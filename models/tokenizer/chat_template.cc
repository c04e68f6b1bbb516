#include "models/tokenizer/chat_template.h"

#include <ctime>
#include <utility>

#include "models/jinja/template.h"

namespace spin {

namespace {

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(jinja::Template parsed, std::function<int64_t()> now_seconds)
      : template_(std::move(parsed)), now_seconds_(std::move(now_seconds)) {}

  absl::StatusOr<std::string> Render(const jinja::Value& variables) const override {
    return template_.Render(variables, now_seconds_);
  }

 private:
  const jinja::Template template_;
  const std::function<int64_t()> now_seconds_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(
    std::string_view source, std::function<int64_t()> now_seconds) {
  absl::StatusOr<jinja::Template> parsed = jinja::Template::Parse(source);
  if (!parsed.ok()) return Annotate(parsed.status(), "chat template");
  if (now_seconds == nullptr) now_seconds = [] { return static_cast<int64_t>(std::time(nullptr)); };
  return std::make_unique<JinjaChatTemplate>(*std::move(parsed), std::move(now_seconds));
}

}  // namespace spin
