// What the front ends need of the engine, and no more: tests script it.
//
// EngineBackend (engine_backend.h) is the production implementation. Any thread may call.
#pragma once

#include "common/ids.h"
#include "common/status.h"
#include "engine/request.h"

namespace spin {

class GenerationBackend {
 public:
  virtual ~GenerationBackend() = default;

  // As Engine::Submit: the status tells what is wrong with the request, everything later goes to its sink.
  virtual absl::Status Submit(Request request) = 0;

  // As Engine::Cancel: unknown and finished ids are ignored.
  virtual void Cancel(RequestId id) = 0;

  virtual RequestId NextRequestId() = 0;
};

}  // namespace spin
