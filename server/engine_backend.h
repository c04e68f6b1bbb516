// GenerationBackend over the engine.
#pragma once

#include "engine/engine.h"
#include "server/generation_backend.h"

namespace spin {

class EngineBackend final : public GenerationBackend {
 public:
  // `engine` outlives this object.
  explicit EngineBackend(Engine& engine) : engine_(engine) {}

  absl::Status Submit(Request request) override;
  void Cancel(RequestId id) override;
  RequestId NextRequestId() override;

 private:
  Engine& engine_;
};

}  // namespace spin
