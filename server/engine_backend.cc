#include "server/engine_backend.h"

#include <utility>

namespace spin {

absl::Status EngineBackend::Submit(Request request) {
  return engine_.Submit(std::move(request));
}

void EngineBackend::Cancel(RequestId id) {
  engine_.Cancel(id);
}

RequestId EngineBackend::NextRequestId() {
  return engine_.NextRequestId();
}

}  // namespace spin
