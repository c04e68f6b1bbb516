// Error answers in OpenAI's shape: {"error":{"message","type","param","code"}}, all four keys always there.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"
#include "server/error_mapping.h"
#include "server/http/http_message.h"

namespace spin {

// The JSON body alone (also the data of a mid-stream failure event). Invalid UTF-8 becomes U+FFFD.
std::string ErrorBody(const ApiError& error);

HttpResponse ErrorResponse(const ApiError& error);

// A 5xx names the request in its text, so that the operator finds it in the log.
HttpResponse ErrorResponse(const absl::Status& status, std::string_view request_id);

// Errors of HTTP itself (404, 405, 413...): type invalid_request_error, no code.
HttpResponse ProtocolError(int http_status, std::string_view message);

}  // namespace spin
