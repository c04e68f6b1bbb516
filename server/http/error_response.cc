#include "server/http/error_response.h"

#include <nlohmann/json.hpp>

namespace spin {
namespace {

nlohmann::ordered_json TextOrNull(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(text);
}

}  // namespace

std::string ErrorBody(const ApiError& error) {
  nlohmann::ordered_json fields;
  fields["message"] = error.message;
  fields["type"] = error.type;
  fields["param"] = TextOrNull(error.param);
  fields["code"] = TextOrNull(error.code);
  nlohmann::ordered_json body;
  body["error"] = std::move(fields);
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response;
  response.status = error.http_status;
  response.body = ErrorBody(error);
  if (error.retry_after_s > 0) {
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  }
  if (error.hopeless) response.headers.emplace_back("x-should-retry", "false");
  return response;
}

HttpResponse ErrorResponse(const absl::Status& status, std::string_view request_id) {
  ApiError error = ToApiError(status);
  if (error.http_status >= 500 && !request_id.empty()) {
    error.message += absl::StrFormat(" (request %s)", request_id);
  }
  return ErrorResponse(error);
}

HttpResponse ProtocolError(int http_status, std::string_view message) {
  ApiError error;
  error.http_status = http_status;
  error.type = http_status >= 500 ? "service_unavailable" : "invalid_request_error";
  error.message = std::string(message);
  return ErrorResponse(error);
}

}  // namespace spin
