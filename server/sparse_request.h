// What both front ends ask of a request's `sparse` member before the engine sees it.
#pragma once

#include <string>

#include "common/status.h"
#include "engine/request.h"
#include "server/serving_context.h"

namespace spin {

// Takes the algorithm's name: empty and the server's own change nothing, "dense" asks for exact attention.
// InvalidArgument: another one, since the layout of the cache is the server's; or exact beside a budget.
absl::Status CheckSparse(const std::string& algorithm, const ModelInfo& model,
                         SparseRequest& sparse);

}  // namespace spin
