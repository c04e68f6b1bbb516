// From absl::Status to what an API client sees: HTTP status, OpenAI's error type, param and code.
//
// A status carries the offending field and the code as payloads, so that every parser below HTTP returns plain
// statuses. Rows follow OpenAI's error guide and what its Python client turns into exceptions and retries.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace spin {

struct ApiError {
  int http_status = 500;
  std::string message;
  std::string type;       // "invalid_request_error"
  std::string param;      // "messages[0].role"; empty: null
  std::string code;       // "model_not_found"; empty: null
  int retry_after_s = 0;  // > 0: the Retry-After header
  bool hopeless = false;  // a 5xx that a retry cannot cure: x-should-retry: false
};

inline constexpr char kCodeInvalidValue[] = "invalid_value";
inline constexpr char kCodeMissing[] = "missing_required_parameter";
inline constexpr char kCodeUnsupported[] = "unsupported_parameter";
inline constexpr char kCodeContextLength[] = "context_length_exceeded";

// The status with the field it is about and OpenAI's code. Empty texts are left out.
absl::Status WithParam(absl::Status status, std::string_view param, std::string_view code);

// InvalidArgument about one field.
template <typename... Args>
[[nodiscard]] absl::Status BadParam(std::string_view param, const absl::FormatSpec<Args...>& format,
                                    const Args&... args) {
  return WithParam(
      absl::Status(absl::StatusCode::kInvalidArgument, absl::StrFormat(format, args...)), param,
      kCodeInvalidValue);
}
absl::Status MissingParam(std::string_view param);
// `what`: "Tool calls are"...; the message says that it is not supported.
absl::Status UnsupportedParam(std::string_view param, std::string_view message);

// REQUIRES: !status.ok(). InvalidArgument and OutOfRange without a payload whose message begins with "field: " name
// that field as param (the engine's own validation does so).
ApiError ToApiError(const absl::Status& status);

}  // namespace spin
