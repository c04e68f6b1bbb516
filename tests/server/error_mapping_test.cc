// Statuses to API errors, row by row, and the body they become.
#include "server/error_mapping.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "server/http/error_response.h"

namespace spin {
namespace {

TEST_CASE("each kind of status has its HTTP status, type and code") {
  struct Row {
    absl::StatusCode code;
    int http_status;
    const char* type;
    const char* api_code;
  };
  const Row rows[] = {
      {absl::StatusCode::kInvalidArgument, 400, "invalid_request_error", ""},
      {absl::StatusCode::kFailedPrecondition, 400, "invalid_request_error", ""},
      {absl::StatusCode::kOutOfRange, 400, "invalid_request_error", "context_length_exceeded"},
      {absl::StatusCode::kAborted, 400, "invalid_request_error", ""},
      {absl::StatusCode::kNotFound, 404, "invalid_request_error", ""},
      {absl::StatusCode::kResourceExhausted, 429, "rate_limit_error", "rate_limit_exceeded"},
      {absl::StatusCode::kInternal, 500, "server_error", ""},
      {absl::StatusCode::kDataLoss, 500, "server_error", ""},
      {absl::StatusCode::kUnimplemented, 501, "not_implemented_error", "unsupported_parameter"},
      {absl::StatusCode::kUnavailable, 503, "service_unavailable", ""},
  };
  for (const Row& row : rows) {
    const ApiError error = ToApiError(absl::Status(row.code, "why"));
    INFO(row.http_status);
    CHECK(error.http_status == row.http_status);
    CHECK(error.type == row.type);
    CHECK(error.code == row.api_code);
    CHECK(error.message == "why");
    CHECK((error.retry_after_s > 0) == (row.http_status == 429 || row.http_status == 503));
    CHECK(error.hopeless == (row.http_status == 501));
  }
}

TEST_CASE("the field comes from the payload, else from the message's first word") {
  CHECK(ToApiError(BadParam("top_p", "bad %d", 1)).param == "top_p");
  CHECK(ToApiError(BadParam("top_p", "bad %d", 1)).code == "invalid_value");
  CHECK(ToApiError(InvalidArgument("stop_token_ids: too many")).param == "stop_token_ids");
  CHECK(ToApiError(InvalidArgument("The field: is unknown")).param.empty());
  CHECK(ToApiError(InvalidArgument("nothing named")).param.empty());
  CHECK(ToApiError(Internal("disk: full")).param.empty());
}

TEST_CASE("the body has four keys, null where nothing is known, and survives invalid UTF-8") {
  const auto body = nlohmann::json::parse(ErrorBody(ToApiError(InvalidArgument("bad \xFF byte"))));
  CHECK(body["error"].size() == 4);
  CHECK(body["error"]["param"].is_null());
  CHECK(body["error"]["code"].is_null());
  CHECK(body["error"]["message"] == "bad \xEF\xBF\xBD byte");
}

TEST_CASE("server errors name the request; only they do") {
  CHECK(ErrorResponse(Internal("x"), "req-9").body.find("(request req-9)") != std::string::npos);
  CHECK(ErrorResponse(InvalidArgument("x"), "req-9").body.find("req-9") == std::string::npos);
}

}  // namespace
}  // namespace spin
