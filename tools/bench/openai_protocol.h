// The OpenAI API as the load client speaks it: request bodies, and what a stream's events say.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"
#include "tools/bench/serve_options.h"
#include "tools/bench/workload.h"

namespace spin {

// The streaming request for one prompt. InvalidArgument when options.extra_body is no JSON object.
absl::StatusOr<std::string> MakeRequestBody(const ServeOptions& options, const std::string& model,
                                            const Prompt& prompt);

// What one event carries.
struct StreamEvent {
  bool done = false;         // [DONE]
  bool has_content = false;  // text, reasoning text or token ids
  int input_tokens = -1;     // of the usage, -1 without one
  int output_tokens = -1;
  std::string error;  // the server's message when it failed inside the stream
};

// DataLoss when the payload is not what an OpenAI stream may hold.
absl::StatusOr<StreamEvent> ParseStreamEvent(std::string_view payload);

// The name of the first model in the answer of /v1/models.
absl::StatusOr<std::string> ParseFirstModel(std::string_view body);

// The message of an error body; the start of the body where it is none.
std::string ParseErrorMessage(std::string_view body);

}  // namespace spin
