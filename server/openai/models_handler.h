// GET /v1/models and /v1/models/{id}.
#pragma once

#include <string>

#include "server/http/http_message.h"
#include "server/serving_context.h"

namespace spin {

HttpResponse ListModels(const ModelInfo& model);
// 404 with code model_not_found for a name that is not served.
HttpResponse GetModel(const ModelInfo& model, const std::string& name);

}  // namespace spin
