#include "server/error_mapping.h"

#include <absl/strings/cord.h>

#include <cctype>
#include <cstddef>

#include "common/check.h"

namespace spin {
namespace {

constexpr char kParamUrl[] = "spin/param";
constexpr char kCodeUrl[] = "spin/code";
constexpr char kInvalidRequest[] = "invalid_request_error";

std::string Payload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

// "top_p: must be..." gives "top_p".
std::string FieldPrefix(const std::string& message) {
  std::size_t end = 0;
  while (end < message.size() &&
         (std::islower(static_cast<unsigned char>(message[end])) != 0 || message[end] == '_')) {
    ++end;
  }
  const bool is_field = end > 0 && message.compare(end, 2, ": ") == 0;
  return is_field ? message.substr(0, end) : std::string();
}

void SetKind(absl::StatusCode code, ApiError& error) {
  const auto set = [&error](int http_status, const char* type, const char* default_code,
                            int retry_after_s = 0) {
    error.http_status = http_status;
    error.type = type;
    if (error.code.empty()) error.code = default_code;
    error.retry_after_s = retry_after_s;
  };
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:  // by the client's own doing: a retry would end alike
      return set(400, kInvalidRequest, "");
    case absl::StatusCode::kOutOfRange:
      return set(400, kInvalidRequest, kCodeContextLength);
    case absl::StatusCode::kNotFound:
      return set(404, kInvalidRequest, "");
    case absl::StatusCode::kResourceExhausted:
      return set(429, "rate_limit_error", "rate_limit_exceeded", 1);
    case absl::StatusCode::kUnimplemented:
      error.hopeless = true;
      return set(501, "not_implemented_error", kCodeUnsupported);
    case absl::StatusCode::kUnavailable:
      return set(503, "service_unavailable", "", 5);
    default:
      return set(500, "server_error", "");
  }
}

}  // namespace

absl::Status WithParam(absl::Status status, std::string_view param, std::string_view code) {
  if (!param.empty()) status.SetPayload(kParamUrl, absl::Cord(std::string(param)));
  if (!code.empty()) status.SetPayload(kCodeUrl, absl::Cord(std::string(code)));
  return status;
}

absl::Status MissingParam(std::string_view param) {
  return WithParam(InvalidArgument("Missing required parameter: '%s'.", param), param,
                   kCodeMissing);
}

absl::Status UnsupportedParam(std::string_view param, std::string_view message) {
  return WithParam(InvalidArgument("%s", message), param, kCodeUnsupported);
}

ApiError ToApiError(const absl::Status& status) {
  SPIN_CHECK(!status.ok());
  ApiError error;
  error.message = MessageOf(status);
  error.param = Payload(status, kParamUrl);
  error.code = Payload(status, kCodeUrl);
  SetKind(status.code(), error);
  const bool names_field = status.code() == absl::StatusCode::kInvalidArgument ||
                           status.code() == absl::StatusCode::kOutOfRange;
  if (names_field && error.param.empty()) error.param = FieldPrefix(error.message);
  return error;
}

}  // namespace spin
