// The shapes of an answer, apart from how it travels: one implementation a kind of endpoint. Pure: state in, JSON out.
#pragma once

#include <span>
#include <string>

#include "server/openai/json_body.h"
#include "server/openai/response_plan.h"

namespace spin {

class ResponseFormat {
 public:
  virtual ~ResponseFormat() = default;

  // The whole answer. REQUIRES: every choice has finished.
  virtual Json Whole(const ResponsePlan& plan, std::span<ChoiceState> choices) const = 0;

  // The chunks for what `choice` holds, which is taken out of it. The first call for a choice opens it.
  virtual std::vector<Json> Chunks(const ResponsePlan& plan, ChoiceState& choice) const = 0;

  // The chunk without choices that carries the usage at the end.
  virtual Json UsageChunk(const ResponsePlan& plan) const = 0;
};

// "stop", "length", or null while it runs. REQUIRES: neither aborted nor failed (those never become an answer).
Json FormatFinishReason(FinishReason finish);

// vLLM's stop_reason: the stop string, the stop token's id, or null.
Json FormatStopReason(const ChoiceState& choice);

// id, object, created, model, system_fingerprint.
Json ResponseHeader(const ResponsePlan& plan, const char* object);

}  // namespace spin
