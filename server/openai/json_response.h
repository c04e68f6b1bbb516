// A whole answer of JSON.
#pragma once

#include "server/http/http_message.h"
#include "server/openai/json_body.h"

namespace spin {

inline HttpResponse JsonResponse(const Json& json) {
  HttpResponse response;
  response.body = DumpJson(json);
  return response;
}

}  // namespace spin
