// The shapes of /v1/completions: text_completion, whole and in chunks.
#pragma once

#include "server/openai/response_format.h"

namespace spin {

class CompletionFormat final : public ResponseFormat {
 public:
  Json Whole(const ResponsePlan& plan, std::span<ChoiceState> choices) const override;
  std::vector<Json> Chunks(const ResponsePlan& plan, ChoiceState& choice) const override;
  Json UsageChunk(const ResponsePlan& plan) const override;
};

}  // namespace spin
