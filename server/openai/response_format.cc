#include "server/openai/response_format.h"

namespace spin {

Json FormatFinishReason(FinishReason finish) {
  if (finish == FinishReason::kStop) return "stop";
  if (finish == FinishReason::kLength) return "length";
  return nullptr;
}

Json FormatStopReason(const ChoiceState& choice) {
  if (!choice.stop_string.empty()) return choice.stop_string;
  if (choice.stop_token.has_value()) return *choice.stop_token;
  return nullptr;
}

Json ResponseHeader(const ResponsePlan& plan, const char* object) {
  Json header;
  header["id"] = plan.id;
  header["object"] = object;
  header["created"] = plan.created;
  header["model"] = plan.model;
  header["system_fingerprint"] = plan.system_fingerprint;
  return header;
}

}  // namespace spin
