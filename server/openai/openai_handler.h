// The HTTP API as one handler: OpenAI's endpoints, vLLM's /tokenize and /detokenize, health, metrics, version.
//
//   POST /v1/completions  /v1/chat/completions  /tokenize  /detokenize
//   GET  /v1/models  /v1/models/{id}  /health  /health/live  /health/ready  /metrics  /version
//
// While the model loads, everything but /health/live, /metrics and /version answers 503 with Retry-After; while the
// server drains, so do new generations and the readiness probes.
#pragma once

#include <memory>

#include "server/http/http_message.h"
#include "server/serving_context.h"

namespace spin {

// `context` outlives the handler and may change its state while requests run.
std::unique_ptr<HttpHandler> MakeOpenAiHandler(const ServingContext& context);

}  // namespace spin
